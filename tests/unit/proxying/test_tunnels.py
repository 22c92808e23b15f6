"""Upgrades: after 101 the engine carries bytes both ways."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from emberbox.proxying.limits import Limits
from tests.unit.proxying.peers import Backend, Bench, Connection, Silent

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: lines\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: lines\r\nX-More: 1\r\n\r\n"


async def test_websocket_echo(bench: Bench) -> None:
    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        backend = Backend(handler=_never, port=next(iter(server.sockets)).getsockname()[1])
        port = await bench.proxied(backend)
        async with connect(f"ws://127.0.0.1:{port}/") as websocket:
            for message in ("hello", b"\x00" * 200_000):
                await websocket.send(message)
                assert await websocket.recv() == message


async def _never(_connection: Connection) -> None:
    raise AssertionError("this backend is a port only")


async def test_tunnel_passes_each_end_by_itself(bench: Bench) -> None:
    async def answer_after_the_end(connection: Connection) -> None:
        head = await connection.read_head()
        assert (head.get("connection"), head.get("upgrade")) == (b"Upgrade", b"lines")
        await connection.send(SWITCHED + b"early")
        said = await connection.reader.read()
        await connection.send(said.upper())

    client = await bench.connect(await bench.proxied(await bench.backend(answer_after_the_end)))
    await client.send(UPGRADE + b"already ")
    head = await client.read_head()
    assert head.get("x-more") == b"1"
    assert await client.reader.readexactly(5) == b"early"
    await client.send(b"said")
    client.half_close()
    assert await client.reader.read() == b"ALREADY SAID"


async def test_client_may_say_all_of_it_before_the_tunnel_is_granted(bench: Bench) -> None:
    finished = asyncio.Event()

    async def grant_late(connection: Connection) -> None:
        await connection.read_head()
        await finished.wait()
        await connection.send(SWITCHED)
        await connection.send(await connection.reader.read())

    client = await bench.connect(await bench.proxied(await bench.backend(grant_late)))
    await client.send(UPGRADE + b"all of it")
    client.half_close()
    finished.set()
    await client.read_head()
    assert await client.reader.read() == b"all of it"


@pytest.mark.parametrize("size", [10, 100_000])
async def test_client_that_finished_behind_an_upgrade_that_is_never_decided_is_given_up(
    bench: Bench, size: int
) -> None:
    silent = Silent(b"")
    limits = Limits(undecided_upgrade=0.05)
    port = await bench.proxied(await bench.backend(silent), limits=limits)
    client = await bench.connect(port)
    await client.send(UPGRADE + bytes(size))
    client.half_close()
    assert await silent.how_it_ended() in ("eof", "reset")
    assert await client.ended() in ("eof", "reset")


async def test_client_that_finished_behind_an_upgrade_has_time_once_it_is_decided(
    bench: Bench,
) -> None:
    limits = Limits(undecided_upgrade=0.2)

    async def answer_slowly(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")
        await asyncio.sleep(3 * limits.undecided_upgrade)
        await connection.send(b"ow")

    port = await bench.proxied(await bench.backend(answer_slowly), limits=limits)
    client = await bench.connect(port)
    await client.send(UPGRADE + UPGRADE[:20])
    client.half_close()
    assert (await client.read_message()).body == b"slow"


async def test_backend_may_finish_first(bench: Bench) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def finish_first(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(SWITCHED + b"bye")
        connection.half_close()
        heard.set_result(await connection.reader.read())

    client = await bench.connect(await bench.proxied(await bench.backend(finish_first)))
    await client.send(UPGRADE)
    await client.read_head()
    assert await client.reader.read() == b"bye"
    await client.send(b"still here")
    client.half_close()
    assert await heard == b"still here"


@pytest.mark.parametrize("who", ["client", "backend"])
async def test_reset_passes_through_a_tunnel(bench: Bench, who: str) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def tunnel(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(SWITCHED)
        await connection.reader.readexactly(2)
        if who == "backend":
            connection.reset()
        else:
            await connection.send(b"go")
            ended.set_result(await connection.ended())

    client = await bench.connect(await bench.proxied(await bench.backend(tunnel)))
    await client.send(UPGRADE)
    await client.read_head()
    await client.send(b"hi")
    if who == "backend":
        assert await client.ended() == "reset"
    else:
        assert await client.reader.readexactly(2) == b"go"
        client.reset()
        assert await ended == "reset"


async def test_upgrade_that_is_not_granted_is_an_ordinary_answer(bench: Bench) -> None:
    backend = await bench.echo()
    client = await bench.connect(await bench.proxied(backend))
    await client.send(UPGRADE * 2)
    for _ in range(2):
        assert (await client.read_message()).status == 200


async def test_upgrade_to_h2c_is_not_offered(bench: Bench) -> None:
    backend = await bench.echo()
    client = await bench.connect(await bench.proxied(backend))
    await client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    )
    await client.read_message()
    assert backend.seen[0].fields == [(b"Host", b"a"), (b"Connection", b"close")]
