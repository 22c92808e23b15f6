"""The route feed between the orchestrator and workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.data_proxy.feed import RouteFeed
from emberbox.orchestrator.data_proxy.follower import RouteFollower
from emberbox.orchestrator.data_proxy.messages import Message, Route
from emberbox.orchestrator.data_proxy.table import RouteTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ONE = Route("i1", "e1", "10.0.0.1", "token")
TWO = Route("i2", "e1", "10.0.0.2")
ME = {os.getpid()}


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "orchestrator" / "routes.sock"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.asynccontextmanager
async def following(path: Path, apply: Callable[[Message], object]) -> AsyncIterator[RouteFollower]:
    def applied(message: Message) -> None:
        apply(message)

    follower = RouteFollower(path, applied)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_changes_are_live_when_put_and_delete_return(socket_path: Path) -> None:
    feed, table = RouteFeed(), RouteTable()
    await feed.put(ONE)
    await feed.start(socket_path)
    assert mode_of(socket_path) == 0o600
    async with following(socket_path, table.apply):
        await feed.wait_ready(ME)
        assert (feed.connected, table.get("i1")) == (1, ONE)
        await feed.put(TWO)
        assert table.get("i2") == TWO
        await feed.delete("i1", "another")
        assert table.get("i1") == ONE
        await feed.delete("i1", "e1")
        assert table.get("i1") is None
        await asyncio.gather(*(feed.put(Route(f"j{n}", "e", "10.0.0.3")) for n in range(100)))
        assert len(table) == 101
    await feed.close()


async def test_table_stays_while_the_orchestrator_is_away(socket_path: Path) -> None:
    feed, table = RouteFeed(), RouteTable()
    await feed.put(ONE)
    await feed.put(TWO)
    await feed.start(socket_path)
    async with following(socket_path, table.apply):
        await feed.wait_ready(ME)
        await feed.close()
        assert len(table) == 2
        feed = RouteFeed()
        await feed.put(TWO)
        await feed.start(socket_path)
        await feed.wait_ready(ME)
        assert table.get("i1") is None, "its sandbox ended while nobody could say so"
        assert table.get("i2") == TWO
    await feed.close()


async def test_worker_that_does_not_keep_up_holds_nobody(socket_path: Path) -> None:
    feed = RouteFeed(ack_within=0.05)
    await feed.start(socket_path)
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    await reader.readline()
    await feed.put(ONE)
    assert await reader.readline() != b""
    assert await reader.read() == b"", "it is cut off, to come back for a snapshot"
    writer.close()
    await feed.close()


async def test_worker_that_talks_nonsense_is_cut_off(socket_path: Path) -> None:
    feed = RouteFeed()
    await feed.start(socket_path)
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    await reader.readline()
    writer.write(b"nonsense\n")
    assert await reader.read() == b""
    assert feed.connected == 0
    writer.close()
    await feed.close()
