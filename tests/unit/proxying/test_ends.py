"""How connections end: no end is made up, and every end is passed on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from emberbox.proxying.limits import Limits
from emberbox.proxying.replies import not_found
from tests.unit.proxying.peers import (
    GET,
    HEAD_OF_CHUNKS,
    OK,
    PATIENCE,
    Bench,
    Connection,
    FixedResolver,
    Silent,
    answering,
    send_until_blocked,
)

HEAD_OF_TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("answer", [b"", HEAD_OF_CHUNKS])
async def test_backend_sees_at_once_that_the_client_vanished(
    bench: Bench, how: str, answer: bytes
) -> None:
    silent = Silent(answer)
    client = await bench.connect(await bench.proxied(await bench.backend(silent)))
    await client.send(GET)
    await silent.reached.wait()
    getattr(client, how)()
    async with asyncio.timeout(2):
        assert await silent.how_it_ended() in ("eof", "reset")


async def test_backend_sees_that_the_client_vanished_in_its_upload(bench: Bench) -> None:
    silent = Silent(b"")
    client = await bench.connect(await bench.proxied(await bench.backend(silent)))
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart")
    await silent.reached.wait()
    client.half_close()
    assert await silent.how_it_ended() == "reset", "a part must not look like a whole"
    assert await client.ended() == "reset"


UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"


@pytest.mark.parametrize("begun", [UPLOAD, GET + UPLOAD], ids=["upload", "pipelined"])
async def test_reset_of_a_client_that_is_not_read_is_noticed(bench: Bench, begun: bytes) -> None:
    """Its data has nowhere to go, so the proxy has stopped reading when the RST comes."""
    reached, look = asyncio.Event(), asyncio.Event()
    over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def stuck(connection: Connection) -> None:
        await connection.read_head()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        reached.set()
        await look.wait()
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        over.set_result(await connection.ended())

    engine, port = await bench.serve(FixedResolver([await bench.backend(stuck)], pooled=False))
    client = await bench.connect(port)
    client.writer.write(begun)
    await reached.wait()
    await send_until_blocked(client)
    client.reset()
    async with asyncio.timeout(PATIENCE):
        while engine.connections:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.01)
        look.set()
        assert await over in ("eof", "reset")


async def test_client_that_finished_sending_still_gets_its_answer(bench: Bench) -> None:
    ended: list[str] = []

    async def answer_after_the_end(connection: Connection) -> None:
        await connection.read_message()
        ended.append(await connection.ended())
        await connection.send(OK)

    client = await bench.connect(
        await bench.proxied(await bench.backend(answer_after_the_end), pooled=True)
    )
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    client.half_close()
    assert (await client.read_message()).body == b"ok"
    assert await client.ended() == "eof"
    assert ended == ["eof"]


async def test_end_in_the_very_round_of_the_answer_leaves_the_answer_whole(bench: Bench) -> None:
    asked: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def answer_later(connection: Connection) -> None:
        await connection.read_message()
        asked.set_result(connection)
        await connection.ended()

    port = await bench.proxied(await bench.backend(answer_later), pooled=True)
    client = await bench.connect(port)
    await client.send(GET)
    with (await asked).duplicate() as server, client.duplicate() as finisher:
        # By the kernel's hand, with nothing awaited between them: both are there at the next poll.
        server.sendall(OK)
        finisher.shutdown(socket.SHUT_WR)
    assert (await client.read_message()).body == b"ok"


async def test_pipelined_requests_before_the_end_are_all_answered(bench: Bench) -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_message()
        await connection.send(OK)

    client = await bench.connect(await bench.proxied(await bench.backend(serve)))
    await client.send(GET * 3)
    client.half_close()
    for _ in range(3):
        assert (await client.read_message()).body == b"ok"
    assert await client.ended() == "eof"


@pytest.mark.parametrize("answer", [HEAD_OF_TEN, HEAD_OF_CHUNKS])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_answer_that_breaks_off_resets_the_client(
    bench: Bench, answer: bytes, how: str
) -> None:
    go_on = asyncio.Event()

    async def break_off(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(answer)
        await go_on.wait()
        getattr(connection, how)()

    client = await bench.connect(await bench.proxied(await bench.backend(break_off)))
    await client.send(GET)
    await client.read_head()
    go_on.set()
    assert await client.ended() == "reset"


async def test_malformed_chunk_of_the_answer_resets_the_client(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def break_later(connection: Connection) -> None:
        await connection.read_message()
        await connection.send(HEAD_OF_CHUNKS)
        await go_on.wait()
        await connection.send(b"zz\r\n")

    client = await bench.connect(await bench.proxied(await bench.backend(break_later)))
    await client.send(GET)
    await client.read_head()
    assert await client.read_chunk() == b"half"
    go_on.set()
    assert await client.ended() == "reset"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        HEAD_OF_CHUNKS + b"zz\r\n",
    ],
)
async def test_backend_that_never_answers_properly_is_a_closed_port(
    bench: Bench, answer: bytes
) -> None:
    client = await bench.connect(await bench.proxied(await bench.backend(answering(answer))))
    await client.send(GET)
    reply = await client.read_message()
    assert reply.status == 502
    assert b"The sandbox is running but port is not open" in reply.body


async def test_malformed_chunk_of_the_request_is_refused(bench: Bench) -> None:
    silent = Silent(b"")
    client = await bench.connect(await bench.proxied(await bench.backend(silent)))
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await silent.reached.wait()
    await client.send(b"1\r\nab\r\n")
    assert (await client.read_message()).status == 400
    assert await client.ended() == "eof"
    assert await silent.how_it_ended() == "reset"


async def test_kept_connection_that_died_is_replaced_once(bench: Bench) -> None:
    async def one_answer_each(connection: Connection) -> None:
        await connection.read_message()
        await connection.send(OK)
        await connection.read_head()

    backend = await bench.backend(one_answer_each)
    client = await bench.connect(await bench.proxied(backend, pooled=True))
    for _ in range(3):
        await client.send(GET)
        assert (await client.read_message()).body == b"ok"
    assert backend.connections == 3


async def test_request_that_may_have_been_acted_on_is_not_repeated(bench: Bench) -> None:
    async def one_answer_each(connection: Connection) -> None:
        await connection.read_message()
        await connection.send(OK)
        await connection.read_head()

    backend = await bench.backend(one_answer_each)
    client = await bench.connect(await bench.proxied(backend, pooled=True))
    await client.send(GET)
    await client.read_message()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
    assert (await client.read_message()).status == 502
    assert backend.connections == 1


async def test_sandbox_that_ends_resets_its_clients_and_no_others(bench: Bench) -> None:
    silent, other = Silent(), Silent()
    resolver = FixedResolver(
        [await bench.backend(silent), await bench.backend(other)], pooled=False
    )
    engine, port = await bench.serve(resolver)
    mine, theirs = await bench.connect(port), await bench.connect(port)
    await mine.send(GET)
    await theirs.send(b"GET / HTTP/1.1\r\nHost: a\r\nBackend: 1\r\n\r\n")
    for client in (mine, theirs):
        await client.read_head()
    assert engine.registry.end("i0", "another", not_found("i0")) == 0
    assert engine.registry.end("i0", "e0", not_found("i0")) == 1
    assert await mine.ended() == "reset"
    assert await silent.how_it_ended() == "reset"
    assert engine.registry.count("i1") == 1


async def test_client_without_an_answer_is_told_that_the_sandbox_ended(bench: Bench) -> None:
    silent = Silent(b"")
    engine, port = await bench.serve(FixedResolver([await bench.backend(silent)], pooled=False))
    client = await bench.connect(port)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    await silent.reached.wait()
    engine.registry.end("i0", "e0", not_found("i0"))
    answer = await client.read_message()
    assert answer.status == 502
    assert answer.body == b'{"sandboxId":"i0","message":"The sandbox was not found","code":502}'


async def test_request_that_may_be_repeated_is_routed_anew(bench: Bench) -> None:
    silent = Silent(b"")
    resolver = FixedResolver([await bench.backend(silent)], pooled=False)
    engine, port = await bench.serve(resolver)
    client = await bench.connect(port)
    await client.send(GET)
    await silent.reached.wait()
    resolver.backends[0] = await bench.backend(answering(OK))
    engine.registry.end("i0", "e0", not_found("i0"))
    assert (await client.read_message()).body == b"ok"
    assert await silent.how_it_ended() == "reset"
    assert engine.registry.count("i0") == 0


async def test_draining_finishes_what_runs_and_closes_what_is_idle(bench: Bench) -> None:
    go_on = asyncio.Event()
    silent = asyncio.Event()

    async def answer_later(connection: Connection) -> None:
        await connection.read_message()
        silent.set()
        await go_on.wait()
        await connection.send(OK)

    engine, port = await bench.serve(
        FixedResolver([await bench.backend(answer_later)], pooled=False)
    )
    busy, idle = await bench.connect(port), await bench.connect(port)
    await busy.send(GET)
    await silent.wait()
    draining = asyncio.create_task(engine.drain(10))
    assert await idle.ended() == "eof"
    go_on.set()
    answer = await busy.read_message()
    assert (answer.body, answer.get("connection")) == (b"ok", b"close")
    assert await draining == 0
    with pytest.raises(ConnectionRefusedError):
        await bench.connect(port)


async def test_draining_resets_what_does_not_finish(bench: Bench) -> None:
    silent = Silent()
    engine, port = await bench.serve(FixedResolver([await bench.backend(silent)], pooled=False))
    client = await bench.connect(port)
    await client.send(GET)
    await client.read_head()
    assert await engine.drain(0.01) == 1
    assert await client.ended() == "reset"
    assert await silent.how_it_ended() in ("eof", "reset")


SOON = Limits(header_timeout=0.02, idle_timeout=0.02, linger=0.02, undecided_upgrade=0.02)
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "first", "last"),
    [
        (GET, HEAD_OF_CHUNKS, b"0\r\n\r\n"),
        (GET, b"", OK),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart", b"", OK),
        (UPGRADE, SWITCHED, b"said in the tunnel"),
        (UPGRADE, b"", SWITCHED),
    ],
    ids=["stream", "long poll", "upload", "tunnel", "undecided tunnel"],
)
async def test_no_timer_ends_what_is_silent(
    bench: Bench, sent: bytes, first: bytes, last: bytes
) -> None:
    """Every limit of time passes many times over; the silence of hours is no other."""
    end = asyncio.Event()

    async def say_more_later(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(first)
        await end.wait()
        await connection.send(last)
        await connection.ended()

    port = await bench.proxied(await bench.backend(say_more_later), pooled=True, limits=SOON)
    client = await bench.connect(port)
    await client.send(sent)
    await asyncio.sleep(20 * SOON.idle_timeout)
    end.set()
    async with asyncio.timeout(PATIENCE):
        await client.reader.readuntil(last[-4:])


async def test_slow_head_is_given_up(bench: Bench) -> None:
    limits = Limits(header_timeout=0.05)
    client = await bench.connect(await bench.proxied(await bench.echo(), limits=limits))
    await client.send(b"GET / HTTP/1.1\r\nHo")
    assert (await client.read_message()).status == 408
    assert await client.ended() == "eof"


async def test_connection_without_any_request_is_closed_silently(bench: Bench) -> None:
    limits = Limits(header_timeout=0.05)
    client = await bench.connect(await bench.proxied(await bench.echo(), limits=limits))
    assert await client.reader.read() == b""


async def test_idle_connection_is_closed(bench: Bench) -> None:
    limits = Limits(header_timeout=0.02, idle_timeout=0.05)
    client = await bench.connect(await bench.proxied(await bench.echo(), limits=limits))
    await client.send(GET)
    await client.read_message()
    assert await client.reader.read() == b""
