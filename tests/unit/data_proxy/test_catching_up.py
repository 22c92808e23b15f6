"""A worker that knows its table to be behind waits for the newer one, for a bounded time.

The orchestrator's end is a plain socket that is driven without giving way to the event loop: so
what it says lies unread beside the requests, as after the worker stood still.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.data_proxy import follower as following
from emberbox.orchestrator.data_proxy.follower import RouteFollower
from emberbox.orchestrator.data_proxy.messages import Message, Put, Route, Snapshot, encode
from emberbox.orchestrator.data_proxy.resolver import HostResolver
from emberbox.orchestrator.data_proxy.table import RouteTable
from emberbox.proxying.heads import parse_request_head
from emberbox.proxying.resolving import Target
from tests.unit.data_proxy.stage import SECRET, inner_request
from tests.unit.proxying.peers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ONE = Route("i1", "e1", "10.0.0.1")
TWO = Route("i2", "e1", "10.0.0.2")


class Orchestrator:
    """The other end of the feed."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        self._feed: socket.socket | None = None

    async def accept(self) -> None:
        self.hang_up()
        async with asyncio.timeout(PATIENCE):
            self._feed, _ = await asyncio.get_running_loop().sock_accept(self._listener)

    def say(self, message: Message) -> None:
        self.say_bytes(encode(message))

    def say_bytes(self, data: bytes) -> None:
        assert self._feed is not None
        self._feed.sendall(data)

    async def hear_ack(self) -> None:
        assert self._feed is not None
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.get_running_loop().sock_recv(self._feed, 100)

    def hang_up(self) -> None:
        if self._feed is not None:
            self._feed.close()

    def vanish(self) -> None:
        self.hang_up()
        self._listener.close()


class World:
    """A follower, its table, and the orchestrator it follows."""

    def __init__(self, path: Path) -> None:
        self.orchestrator = Orchestrator(path)
        self.table = RouteTable()
        self.follower = RouteFollower(path, self._apply)
        self.resolver = HostResolver(self.table, SECRET, self.follower)
        self.defects: list[Exception] = []

    def _apply(self, message: Message) -> None:
        if self.defects:
            raise self.defects.pop()
        self.table.apply(message)

    async def begin(self) -> None:
        await self.orchestrator.accept()
        self.orchestrator.say(Snapshot(0, (ONE,)))
        await self.orchestrator.hear_ack()
        assert not self.follower.behind

    async def ask(self, number: int) -> bool:
        """Whether a request for sandbox `i<number>` is forwarded."""
        request = parse_request_head(inner_request(number))
        decision = self.resolver.resolve(request, "127.0.0.1")
        async with asyncio.timeout(PATIENCE):
            decided = await decision if inspect.isawaitable(decision) else decision
        return isinstance(decided, Target)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "routes.sock")
    task = asyncio.create_task(world.follower.run())
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    world.orchestrator.vanish()


@pytest.fixture
def _comes_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each feed had lived for long."""
    monkeypatch.setattr(following, "_LONG_LIFE", 0)


async def test_first_table_is_waited_for(world: World) -> None:
    assert world.follower.behind
    asking = asyncio.create_task(world.ask(1))
    await world.begin()
    assert await asking


async def test_unread_news_are_waited_for(world: World) -> None:
    await world.begin()
    world.orchestrator.say(Put(1, TWO))
    assert world.follower.behind
    assert await world.ask(2)
    assert not world.follower.behind


async def test_message_that_came_in_part_is_waited_for(world: World) -> None:
    await world.begin()
    line = encode(Put(1, TWO))
    world.orchestrator.say_bytes(line[:20])
    asking = asyncio.create_task(world.ask(2))
    await asyncio.sleep(0.01)
    world.orchestrator.say_bytes(line[20:])
    assert await asking


@pytest.mark.usefixtures("_comes_back_at_once")
async def test_worker_that_was_cut_off_waits_for_its_snapshot(world: World) -> None:
    await world.begin()
    world.orchestrator.hang_up()
    assert world.follower.behind
    new, ended = asyncio.create_task(world.ask(2)), asyncio.create_task(world.ask(1))
    await world.orchestrator.accept()
    world.orchestrator.say(Snapshot(7, (TWO,)))
    assert await new
    assert not await ended, "its address may be another's by now"


@pytest.mark.usefixtures("_comes_back_at_once")
async def test_orchestrator_that_is_away_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.begin()
    monkeypatch.setattr(following, "_PATIENCE", PATIENCE)
    world.orchestrator.vanish()
    async with asyncio.timeout(PATIENCE / 4):
        assert not await world.ask(2)
        assert await world.ask(1), "the last table stays"
    assert not world.follower.behind


async def test_orchestrator_that_stands_still_is_waited_for_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PATIENCE", 0.01)
    await world.orchestrator.accept()
    assert not await world.ask(1)
    assert not world.follower.behind
    world.orchestrator.say(Snapshot(0, (ONE,)))
    await world.orchestrator.hear_ack()
    world.orchestrator.say(Put(1, TWO))
    monkeypatch.setattr(following, "_PATIENCE", PATIENCE)
    assert await world.ask(2)


async def test_nonsense_ends_the_feed_and_keeps_the_table(world: World) -> None:
    await world.begin()
    world.orchestrator.say_bytes(b"nonsense\n")
    await world.orchestrator.accept()
    assert world.table.get("i1") == ONE


async def test_change_that_fails_ends_the_feed_and_not_the_following(world: World) -> None:
    await world.begin()
    world.defects.append(RuntimeError("a defect"))
    world.orchestrator.say(Put(1, TWO))
    await world.orchestrator.accept()
    world.orchestrator.say(Snapshot(2, (ONE, TWO)))
    await world.orchestrator.hear_ack()
    assert await world.ask(2)
