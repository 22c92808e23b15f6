"""From a client through both proxies into guests."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.unit.data_proxy.stage import (
    ENVD_TEST_PORT,
    Envd,
    Stage,
    guest_address,
    inner_request,
    request,
)
from tests.unit.proxying.peers import OK, Connection, answering

NOT_FOUND = b'{"sandboxId":"i1","message":"The sandbox was not found","code":502}'
CLOSED = (
    b'{"sandboxId":"i1","message":"The sandbox is running but port is not open",'
    b'"port":8000,"code":502}'
)


async def test_requests_of_one_connection_reach_their_own_sandboxes(stage: Stage) -> None:
    edge, _ = await stage.open()
    guests = [await stage.echoing_guest(number, 8000) for number in (1, 2)]
    for number in (1, 2):
        stage.put(number)
    client = await stage.connect(edge)
    for number in (1, 2, 2, 1):
        await client.send(request(number, path=f"/for-{number}"))
        assert (await client.read_message()).status == 200
    for number, guest in zip((1, 2), guests, strict=True):
        assert {seen.first_line for seen in guest.seen} == {b"GET /for-%d HTTP/1.1" % number}
    assert len(stage.worker.engine.connections) == 1, "the hop between the proxies is kept alive"


async def test_guest_sees_the_clients_request_and_nothing_of_ours(stage: Stage) -> None:
    edge, _ = await stage.open()
    guest = await stage.echoing_guest(1, 8000)
    stage.put(1)
    client = await stage.connect(edge)
    await client.send(request(1, 8000, "X-Emberbox-Internal-Secret: guess", "Cookie: a=b"))
    await client.read_message()
    assert guest.seen[0].fields == [
        (b"Host", b"8000-i1.example.com"),
        (b"Cookie", b"a=b"),
        (b"Connection", b"close"),
    ]


async def test_websocket_through_both_proxies(stage: Stage) -> None:
    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    edge, _ = await stage.open()
    stage.put(1)
    async with serve(echo, guest_address(1), 8765):
        uri = f"ws://127.0.0.1:{edge}/"
        headers = {"E2b-Sandbox-Id": "i1", "E2b-Sandbox-Port": "8765"}
        async with connect(uri, additional_headers=headers) as websocket:
            for message in ("hello", b"\x01" * 300_000):
                await websocket.send(message)
                assert await websocket.recv() == message


async def test_kill_resets_a_stream_and_answers_502_at_once(stage: Stage) -> None:
    edge, _ = await stage.open()

    async def stream(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await connection.ended()

    await stage.guest(1, 8000, stream)
    await stage.echoing_guest(2, 8000)
    for number in (1, 2):
        stage.put(number)
    client, other = await stage.connect(edge), await stage.connect(edge)
    await client.send(request(1))
    await client.read_head()
    assert await client.read_chunk() == b"a"
    stage.delete(1, execution="an earlier one")
    stage.delete(1)
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)
    for number, status in ((2, 200), (1, 502)):
        await other.send(request(number))
        answer = await other.read_message()
        assert answer.status == status
    assert answer.body == NOT_FOUND


async def test_worker_away_says_nothing_about_the_sandbox(stage: Stage) -> None:
    edge, _ = await stage.open()
    await stage.worker.engine.drain(0)
    client = await stage.connect(edge)
    await client.send(request(1))
    answer = await client.read_message()
    assert answer.status == 502
    assert answer.body == (
        b'{"sandboxId":"i1","message":"The host of the sandbox does not answer; try again",'
        b'"code":502}'
    )


@pytest.mark.parametrize("path", ["/init", "//%69nit", "/bridge?x", "/a/../freeze"])
async def test_control_routes_are_closed_at_both(stage: Stage, path: str) -> None:
    edge, worker = await stage.open()
    for port, send in ((edge, request), (worker, inner_request)):
        client = await stage.connect(port)
        await client.send(send(1, ENVD_TEST_PORT, path=path))
        answer = await client.read_message()
        assert answer.status == 404
        assert b"reserved for the E2B control plane" in answer.body
        await client.send(send(1, 8000, path=path))
        assert (await client.read_message()).status == 502, "only envd's are reserved"


async def test_worker_serves_nobody_without_the_secret(stage: Stage) -> None:
    _, worker = await stage.open()
    await stage.echoing_guest(1, 8000)
    stage.put(1)
    client = await stage.connect(worker)
    for fields in ([], ["X-Emberbox-Internal-Secret: guess"]):
        await client.send(request(1, 8000, *fields))
        assert (await client.read_message()).status == 403
    await client.send(inner_request(1))
    assert (await client.read_message()).status == 200


async def test_traffic_token(stage: Stage) -> None:
    edge, _ = await stage.open()
    for port in (8000, ENVD_TEST_PORT):
        await stage.echoing_guest(1, port)
    stage.put(1, token="right")
    client = await stage.connect(edge)
    cases = [
        (8000, [], 403, b"is missing"),
        (8000, ["e2b-traffic-access-token: wrong"], 403, b"is invalid"),
        (8000, ["E2B-Traffic-Access-Token: right"], 200, b""),
        (ENVD_TEST_PORT, [], 200, b""),
    ]
    for port, fields, status, text in cases:
        await client.send(request(1, port, *fields))
        answer = await client.read_message()
        assert (answer.status, text in answer.body) == (status, True)


async def test_the_host_is_masked(stage: Stage) -> None:
    edge, _ = await stage.open()
    guest = await stage.echoing_guest(1, 8000)
    stage.put(1, mask="${PORT}-app.example:${PORT}")
    client = await stage.connect(edge)
    await client.send(request(1, 8000, "X-Forwarded-Host: forged", "Cookie: a=b"))
    await client.read_message()
    assert guest.seen[0].fields == [
        (b"Host", b"8000-app.example:8000"),
        (b"X-Forwarded-Host", b"8000-i1.example.com"),
        (b"Cookie", b"a=b"),
        (b"Connection", b"close"),
    ]


async def test_the_host_is_not_masked_for_envd(stage: Stage) -> None:
    edge, _ = await stage.open()
    envd = await stage.echoing_guest(1, ENVD_TEST_PORT)
    stage.put(1, mask="app.example")
    client = await stage.connect(edge)
    await client.send(request(1, ENVD_TEST_PORT))
    await client.read_message()
    assert envd.seen[0].get("host") == f"{ENVD_TEST_PORT}-i1.example.com".encode()
    assert envd.seen[0].get("x-forwarded-host") is None


async def test_the_host_of_a_websocket_is_masked(stage: Stage) -> None:
    edge, _ = await stage.open()
    hosts = []

    async def note(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        hosts.append([websocket.request.headers[name] for name in ("Host", "X-Forwarded-Host")])

    stage.put(1, mask="localhost:${PORT}")
    async with serve(note, guest_address(1), 9000):
        headers = {"E2b-Sandbox-Id": "i1", "E2b-Sandbox-Port": "9000"}
        async with connect(f"ws://127.0.0.1:{edge}/", additional_headers=headers) as websocket:
            await websocket.wait_closed()
    assert hosts == [["localhost:9000", f"127.0.0.1:{edge}"]]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([], b"Invalid host"),
        (["E2b-Sandbox-Id: i1"], b"missing header"),
        (["E2b-Sandbox-Id: I1", "E2b-Sandbox-Port: 1"], b"Invalid sandbox ID"),
        (["E2b-Sandbox-Id: i1", "E2b-Sandbox-Port: 0"], b"Invalid sandbox port"),
    ],
)
async def test_requests_without_a_route(stage: Stage, fields: list[str], text: bytes) -> None:
    edge, _ = await stage.open()
    client = await stage.connect(edge)
    await client.send("\r\n".join(["GET / HTTP/1.1", "Host: localhost", *fields, "", ""]).encode())
    answer = await client.read_message()
    assert (answer.status, answer.body) == (400, text)
    assert answer.get("content-type") == b"text/plain; charset=utf-8"


async def test_port_on_the_guests_loopback_is_bridged(stage: Stage) -> None:
    edge, _ = await stage.open()
    envd = Envd(stage, 1, answering(OK))
    await envd.start()
    stage.put(1)
    client = await stage.connect(edge)
    for _ in range(2):
        await client.send(request(1))
        assert (await client.read_message()).body == b"ok"
    assert envd.asked == [8000], "a bridged port is dialled like any other"


async def test_closed_port_is_told_promptly(stage: Stage) -> None:
    edge, _ = await stage.open()
    envd = Envd(stage, 1, None)
    await envd.start()
    stage.put(1)
    client = await stage.connect(edge)
    async with asyncio.timeout(0.9):
        await client.send(request(1))
        answer = await client.read_message()
    assert (answer.status, answer.body) == (502, CLOSED)
    assert envd.asked == [8000]


async def test_guest_without_envd_has_no_open_port(stage: Stage) -> None:
    edge, _ = await stage.open()
    stage.put(1)
    client = await stage.connect(edge)
    await client.send(request(1))
    assert (await client.read_message()).body == CLOSED


async def test_envd_that_is_restarted_is_waited_for(stage: Stage) -> None:
    edge, _ = await stage.open()
    stage.put(1)
    client = await stage.connect(edge)
    await client.send(request(1, ENVD_TEST_PORT))
    async with asyncio.timeout(5):
        while not stage.worker.engine.registry.count("i1"):  # noqa: ASYNC110 - another's state
            await asyncio.sleep(0.001)
    await stage.echoing_guest(1, ENVD_TEST_PORT)
    assert (await client.read_message()).status == 200


async def test_only_envds_connections_are_kept_and_only_for_an_execution(stage: Stage) -> None:
    edge, _ = await stage.open()
    envd = await stage.echoing_guest(1, ENVD_TEST_PORT)
    user = await stage.echoing_guest(1, 8000)
    stage.put(1)
    client = await stage.connect(edge)
    for port in (ENVD_TEST_PORT, 8000) * 3:
        await client.send(request(1, port))
        await client.read_message()
    assert (envd.connections, user.connections) == (1, 3)
    stage.put(1, execution="e2")
    await client.send(request(1, ENVD_TEST_PORT))
    await client.read_message()
    assert envd.connections == 2


async def test_envd_gives_no_tunnels(stage: Stage) -> None:
    edge, _ = await stage.open()
    envd = await stage.echoing_guest(1, ENVD_TEST_PORT)
    stage.put(1)
    client = await stage.connect(edge)
    await client.send(request(1, ENVD_TEST_PORT, "Connection: upgrade", "Upgrade: websocket"))
    await client.read_message()
    assert envd.seen[0].get("upgrade") is None
