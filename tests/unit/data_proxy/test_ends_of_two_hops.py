"""Ends and loads that pass through both proxies, with guests that are plain sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.data_proxy.stage import ENVD_TEST_PORT, Stage, request
from tests.unit.proxying.peers import (
    BLOCK,
    HEAD_OF_CHUNKS,
    MIB,
    PATIENCE,
    Connection,
    Silent,
    send_until_blocked,
)

LONG_POLL = b""
SWITCHED = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPGRADE = request(1, 8000, "Connection: Upgrade", "Upgrade: websocket")
UPLOAD = b"POST / HTTP/1.1\r\nHost: 8000-i1.example.com\r\nContent-Length: 100\r\n\r\nhalf"
MANY = 200


@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (request(1), HEAD_OF_CHUNKS),
        (request(1), LONG_POLL),
        (UPLOAD, LONG_POLL),
        (UPGRADE, SWITCHED),
        (UPGRADE, LONG_POLL),
        (request(1, ENVD_TEST_PORT), HEAD_OF_CHUNKS),
    ],
    ids=["stream", "long poll", "half upload", "websocket", "undecided upgrade", "envd's stream"],
)
async def test_guest_sees_at_once_that_the_client_left(
    stage: Stage, sent: bytes, answer: bytes, how: str
) -> None:
    edge, _ = await stage.open()
    silent = Silent(answer)
    for port in (8000, ENVD_TEST_PORT):
        await stage.guest(1, port, silent)
    stage.put(1)
    client = await stage.connect(edge)
    await client.send(sent)
    await silent.reached.wait()
    getattr(client, how)()
    end = await silent.how_it_ended()
    if sent is UPLOAD:
        assert end == "reset", "half of an upload must not look like all of it"
    elif how == "reset" and answer is SWITCHED:
        assert end == "reset"


@pytest.mark.parametrize("answer", [HEAD_OF_CHUNKS, SWITCHED], ids=["stream", "websocket"])
async def test_kill_resets_what_is_open(stage: Stage, answer: bytes) -> None:
    edge, _ = await stage.open()
    silent = Silent(answer)
    await stage.guest(1, 8000, silent)
    stage.put(1)
    client = await stage.connect(edge)
    await client.send(UPGRADE)
    await client.read_head()
    stage.delete(1)
    assert await client.ended() == "reset", "no clean end"
    assert await silent.how_it_ended() == "reset"


async def test_kill_answers_what_waits(stage: Stage) -> None:
    edge, _ = await stage.open()
    silent = Silent(LONG_POLL)
    await stage.guest(1, 8000, silent)
    stage.put(1)
    client = await stage.connect(edge)
    await client.send(request(1))
    await silent.reached.wait()
    stage.delete(1)
    answer = await client.read_message()
    assert (answer.status, b"was not found" in answer.body) == (502, True)


async def test_client_that_stops_reading_holds_the_guest(stage: Stage) -> None:
    edge, _ = await stage.open()
    blocked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    rest = asyncio.Event()

    async def download(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (50 * MIB))
        blocked.set_result(await send_until_blocked(connection))
        await rest.wait()
        await connection.send(bytes(50 * MIB - blocked.result() - len(BLOCK)))

    await stage.guest(1, 8000, download)
    stage.put(1)
    client = await stage.connect(edge)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(request(1))
    assert await blocked < 30 * MIB
    for engine in (stage.edge, stage.worker.engine):
        assert engine is not None
        for connection in engine.connections:
            assert connection.unsent <= 2 * engine.limits.write_high_water
    rest.set()
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await client.read_head()
    assert len(await client.reader.readexactly(50 * MIB)) == 50 * MIB


async def test_many_streams_run_side_by_side_and_end_alone(stage: Stage) -> None:
    edge, _ = await stage.open()
    speak = asyncio.Event()
    open_in_guest = 0

    async def stream(connection: Connection) -> None:
        nonlocal open_in_guest
        head = await connection.read_head()
        open_in_guest += 1
        await connection.send(HEAD_OF_CHUNKS)
        await speak.wait()
        name = head.first_line.split()[1]
        await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(name), name))
        await connection.ended()
        open_in_guest -= 1

    await stage.guest(1, ENVD_TEST_PORT, stream)
    stage.put(1)
    clients = [await stage.connect(edge) for _ in range(MANY)]
    for number, client in enumerate(clients):
        await client.send(request(1, ENVD_TEST_PORT, path=f"/{number}"))
    for client in clients:
        await client.read_head()
        assert await client.read_chunk() == b"half"
    assert open_in_guest == MANY
    leaving, staying = clients[: MANY // 2], clients[MANY // 2 :]
    for client in leaving:
        client.reset()
    async with asyncio.timeout(PATIENCE):
        while len(stage.worker.engine.connections) > len(staying):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    speak.set()
    for number, client in enumerate(staying, MANY // 2):
        assert await client.read_chunks() == (b"/%d" % number, b"")
