"""Resolvers that take their time, and those that fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from emberbox.proxying.replies import not_found, port_closed
from tests.unit.proxying.peers import GET, PATIENCE, Bench, FixedResolver

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.replies import Reply
    from emberbox.proxying.resolving import Decision, Target

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


class Waiting:
    """Decides when it is told to."""

    def __init__(self, decision: Decision | Exception) -> None:
        self._decision = decision
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def resolve(self, request: RequestHead, peer: str) -> Decision:
        assert (request.fields.routing[0], peer) == (b"a", "127.0.0.1")
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self._decision, Exception):
            raise self._decision
        return self._decision

    def unreachable(self, target: Target) -> Reply:
        return port_closed(target.sandbox_id, target.sandbox_port)


async def test_request_waits_for_the_decision_and_loses_nothing(bench: Bench) -> None:
    backend = await bench.echo()
    waiting = Waiting(FixedResolver([backend], pooled=False).target(0))
    _, port = await bench.serve(waiting)
    client = await bench.connect(port)
    await client.send(POST * 2)
    await waiting.asked.wait()
    assert backend.connections == 0
    waiting.go_on.set()
    for _ in range(2):
        assert (await client.read_message()).body == b"abc"


async def test_refusal_leaves_the_connection_usable(bench: Bench) -> None:
    waiting = Waiting(not_found("i0"))
    waiting.go_on.set()
    _, port = await bench.serve(waiting)
    client = await bench.connect(port)
    await client.send(POST * 2 + GET)
    for _ in range(3):
        assert (await client.read_message()).status == 502


async def test_client_that_leaves_cancels_the_decision(bench: Bench) -> None:
    waiting = Waiting(not_found("i0"))
    engine, port = await bench.serve(waiting)
    client = await bench.connect(port)
    await client.send(GET)
    await waiting.asked.wait()
    client.reset()
    async with asyncio.timeout(PATIENCE):
        await waiting.cancelled.wait()
    assert await engine.drain(0) == 0


class Failing(Waiting):
    """Has a defect before it even waits."""

    def resolve(self, request: RequestHead, peer: str) -> Coroutine[object, object, Decision]:
        raise RuntimeError(f"defect with {request.target!r} of {peer}")


@pytest.mark.parametrize("kind", [Waiting, Failing])
async def test_defect_of_a_resolver_is_an_answer(bench: Bench, kind: type[Waiting]) -> None:
    resolver = kind(RuntimeError("defect"))
    resolver.go_on.set()
    _, port = await bench.serve(resolver)
    client = await bench.connect(port)
    for _ in range(2):
        await client.send(GET)
        assert (await client.read_message()).status == 500


async def test_large_refused_body_ends_the_connection(bench: Bench) -> None:
    waiting = Waiting(not_found("i0"))
    waiting.go_on.set()
    _, port = await bench.serve(waiting)
    client = await bench.connect(port)
    await client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1000
    )
    answer = await client.read_message()
    assert (answer.status, answer.get("connection")) == (502, b"close")
    assert await client.ended() == "eof"


async def test_client_that_finished_is_not_lingered_for(bench: Bench) -> None:
    engine, port = await bench.serve(Waiting(not_found("i0")))
    client = await bench.connect(port)
    await client.send(b"garbage\r\n\r\n")
    client.half_close()
    assert (await client.read_message()).status == 400
    assert await client.ended() == "eof"
    assert await engine.drain(PATIENCE) == 0
