"""Streams that their user gives up, or forgets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox import PtySize
from emberbox.sdk.connect_protocol import encode_frame

from .process_events import START, STARTED
from .stand_in import Answer, StandIn, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WATCH = "/filesystem.Filesystem/WatchDir"
INPUT = "/process.Process/StreamInput"


async def open_command(sandbox: emberbox.AsyncSandbox) -> Any:
    return await sandbox.commands.run("x", background=True)


async def open_terminal(sandbox: emberbox.AsyncSandbox) -> Any:
    return await sandbox.pty.create(PtySize(24, 80), print)


async def open_watch(sandbox: emberbox.AsyncSandbox) -> Any:
    return await sandbox.files.watch_dir("/x", print)


async def open_input(sandbox: emberbox.AsyncSandbox) -> Any:
    return sandbox.commands.stream_input(7)


async def leave(handle: Any) -> None:
    if isinstance(handle, emberbox.AsyncCommandInputHandle):
        await handle.__aexit__(KeyError, KeyError(), None)
    elif isinstance(handle, emberbox.AsyncWatchHandle):
        await handle.stop()
    else:
        await handle.disconnect()


@pytest.fixture
def silent(server: StandIn) -> StandIn:
    """All streams begin and then say nothing."""
    server.on("POST", START, Answer(200, [encode_frame(STARTED)], end="hang"))
    server.on("POST", WATCH, Answer(200, [encode_frame({"start": {}})], end="hang"))
    server.on("POST", INPUT, Answer(200, [], early=True, end="hang"))
    return server


WAYS: dict[str, Callable[[emberbox.AsyncSandbox], Awaitable[Any]]] = {
    "command": open_command,
    "terminal": open_terminal,
    "watch": open_watch,
    "input": open_input,
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_given_up_leaves_no_task_and_no_connection(silent: StandIn, way: str) -> None:
    sandbox = await emberbox.AsyncSandbox.create()
    mine: set[asyncio.Task[Any]] = set()
    for number in (1, 2, 3):
        before = asyncio.all_tasks()
        handle = await WAYS[way](sandbox)
        mine |= {task for task in asyncio.all_tasks() - before if "/_async/" in repr(task)}
        await until(lambda: len(silent.requests) > number)  # noqa: B023 (called at once)
        await leave(handle)
    assert mine
    assert all(task.done() for task in mine)
    await until(lambda: silent.given_up.qsize() == 3)


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_forgotten_ends_quietly_with_its_loop(
    silent: StandIn, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def forget() -> None:
        await WAYS[way](await emberbox.AsyncSandbox.create())
        while len(silent.requests) < 2:  # noqa: ASYNC110 (of another loop)
            await asyncio.sleep(0.01)

    await asyncio.to_thread(asyncio.run, forget())
    await until(lambda: silent.given_up.qsize() == 1)
    assert caplog.records == []
