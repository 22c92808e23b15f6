"""Requests and answers through one hop."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.proxying.peers import GET, OK, Bench, Connection, answering


async def test_keep_alive_serves_requests_one_after_another(bench: Bench) -> None:
    backend = await bench.echo()
    client = await bench.connect(await bench.proxied(backend))
    for number in range(5):
        body = b"%d" % number
        await client.send(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n" + body)
        answer = await client.read_message()
        assert (answer.status, answer.body) == (200, body)
    assert backend.connections == 5, "a user's port gets a fresh connection for each request"


async def test_end_to_end_fields_pass_unchanged(bench: Bench) -> None:
    backend = await bench.echo()
    client = await bench.connect(await bench.proxied(backend))
    await client.send(
        b"GET /a%2Fb?q=%20 HTTP/1.1\r\nHost: 8000-i0.Example.com:3002\r\nX-One: 1\r\n"
        b"x-two: a, b \r\nX-One: 2\r\nKeep-Alive: 5\r\nConnection: keep-alive, x-hop, Host\r\n"
        b"X-Hop: y\r\nX-Emberbox-Internal-Secret: guess\r\nTE: trailers\r\n\r\n"
    )
    await client.read_message()
    seen = backend.seen[0]
    assert seen.first_line == b"GET /a%2Fb?q=%20 HTTP/1.1"
    assert seen.fields == [
        (b"Host", b"8000-i0.Example.com:3002"),
        (b"X-One", b"1"),
        (b"x-two", b"a, b"),
        (b"X-One", b"2"),
        (b"Connection", b"close"),
    ]


async def test_chunked_request_is_streamed_with_its_trailers(bench: Bench) -> None:
    pieces: list[bytes] = []

    async def read_one_by_one(connection: Connection) -> None:
        await connection.read_head()
        for _ in range(2):
            pieces.append(await connection.read_chunk())
            await connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        _, trailers = await connection.read_chunks()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(trailers))
        await connection.send(trailers)

    client = await bench.connect(await bench.proxied(await bench.backend(read_one_by_one)))
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for chunk in (b"3\r\nabc\r\n", b"2;name=value\r\nde\r\n"):
        await client.send(chunk)
        assert (await client.read_head()).status == 102, "the chunk was held back"
    await client.send(b"0\r\nX-Sum: 5\r\nContent-Length: 7\r\n\r\n")
    answer = await client.read_message()
    assert pieces == [b"abc", b"de"]
    assert answer.body == b"X-Sum: 5\r\n", "framing fields do not pass as trailers"


async def test_chunked_answer_is_streamed_with_its_trailers(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def in_two_parts(connection: Connection) -> None:
        await connection.read_message()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        await go_on.wait()
        await connection.send(b"1\r\n2\r\n0\r\nX-End: yes\r\n\r\n")

    client = await bench.connect(await bench.proxied(await bench.backend(in_two_parts)))
    await client.send(GET)
    head = await client.read_head()
    assert head.get("transfer-encoding") == b"chunked"
    assert await client.read_chunk() == b"part"
    go_on.set()
    assert await client.read_chunks() == (b"2", b"X-End: yes\r\n")


async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    backend = await bench.echo()
    client = await bench.connect(await bench.proxied(backend))
    requests = [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(8)
    ]
    await client.send(b"\r\n" + b"".join(requests))
    assert [(await client.read_message()).body for _ in requests] == [
        b"%d" % number for number in range(8)
    ]


async def test_every_request_of_a_connection_is_routed_anew(bench: Bench) -> None:
    first, second = await bench.echo(), await bench.echo()
    client = await bench.connect(await bench.proxied(first, second, pooled=True))
    for number in (b"0", b"1", b"0", b"1"):
        await client.send(b"GET /%b HTTP/1.1\r\nHost: a\r\nBackend: %b\r\n\r\n" % (number, number))
        await client.read_message()
    assert [message.first_line for message in first.seen] == [b"GET /0 HTTP/1.1"] * 2
    assert [message.first_line for message in second.seen] == [b"GET /1 HTTP/1.1"] * 2
    assert (first.connections, second.connections) == (1, 1)


async def test_expect_continue_passes_both_ways(bench: Bench) -> None:
    async def continuing(connection: Connection) -> None:
        head = await connection.read_head()
        assert head.get("expect") == b"100-continue"
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await connection.reader.readexactly(3)
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body)

    client = await bench.connect(await bench.proxied(await bench.backend(continuing)))
    await client.send(
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    assert (await client.read_head()).status == 100
    await client.send(b"abc")
    assert (await client.read_message()).body == b"abc"


async def test_refusal_instead_of_continue_ends_the_connection(bench: Bench) -> None:
    refusing = await bench.backend(
        lambda connection: _refuse_early(
            connection, b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"
        )
    )
    client = await bench.connect(await bench.proxied(refusing))
    await client.send(
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    answer = await client.read_message()
    assert answer.status == 417
    assert await client.ended() == "eof"


async def _refuse_early(connection: Connection, answer: bytes) -> None:
    await connection.read_head()
    await connection.send(answer)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
    ],
)
async def test_answers_without_a_body_leave_the_connection_usable(
    bench: Bench, method: bytes, answer: bytes
) -> None:
    backend = await bench.backend(answering(answer, OK))
    client = await bench.connect(await bench.proxied(backend, pooled=True))
    await client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    first = await client.read_message(bodiless=True)
    assert first.status == int(answer.split()[1])
    await client.send(GET)
    assert (await client.read_message()).body == b"ok"
    assert backend.connections == 1


async def test_answer_until_close_is_chunked_for_the_client(bench: Bench) -> None:
    backend = await bench.backend(answering(b"HTTP/1.0 200 OK\r\n\r\nall of it"))
    client = await bench.connect(await bench.proxied(backend))
    await client.send(GET)
    answer = await client.read_message()
    assert (answer.body, answer.get("connection")) == (b"all of it", None)


async def test_http_1_0_client_gets_a_plain_body_and_the_end(bench: Bench) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    client = await bench.connect(await bench.proxied(await bench.backend(answering(chunked))))
    await client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    head = await client.read_head()
    assert head.get("transfer-encoding") is None
    assert head.get("connection") == b"close"
    assert await client.reader.read() == b"abc"


async def test_early_answer_reaches_a_client_that_still_sends(bench: Bench) -> None:
    backend = await bench.backend(
        lambda connection: _refuse_early(
            connection,
            b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
        )
    )
    client = await bench.connect(await bench.proxied(backend))
    await client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 4096
    )
    answer = await client.read_message()
    assert (answer.status, answer.body) == (413, b"big")
    assert answer.get("connection") == b"close"
    await client.send(b"x" * 100_000)
    assert await client.ended() == "eof"


async def test_answer_may_stream_while_the_request_does(bench: Bench) -> None:
    async def mirror(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while chunk := await connection.read_chunk():
            await connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await connection.reader.readexactly(2)
        await connection.send(b"0\r\n\r\n")

    client = await bench.connect(await bench.proxied(await bench.backend(mirror), pooled=True))
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.read_head()
    for word in (b"one", b"two"):
        await client.send(b"3\r\n%b\r\n" % word)
        assert await client.read_chunk() == word
    await client.send(b"0\r\n\r\n")
    assert await client.read_chunks() == (b"", b"")


async def test_nothing_listens(bench: Bench) -> None:
    backend = await bench.echo()
    port = await bench.proxied(backend)
    await backend.stop()
    client = await bench.connect(port)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    answer = await client.read_message()
    assert answer.status == 502
    assert answer.body == (
        b'{"sandboxId":"i0","message":"The sandbox is running but port is not open",'
        b'"port":8000,"code":502}'
    )
    await client.send(GET)
    assert (await client.read_message()).status == 502, "the connection lives on"
