"""Watching a directory: a task follows the stream of its events and calls a handler.

The synchronous flavour asks the sandbox for the events since it last asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from emberbox.sdk.error_mapping import FILE_RPC_ERRORS
from emberbox.sdk.errors import SandboxException
from emberbox.sdk.file_models import FilesystemEvent, watch_message
from emberbox.sdk.json_fields import nested

from .flavour import call_handler, opening_limit

if TYPE_CHECKING:
    from emberbox.sdk.config import Username
    from emberbox.sdk.json_fields import JsonObject

    from .envd import AsyncEnvd
    from .event_stream import AsyncEventStream
    from .flavour import OutputHandler


class WatchesDirectories:
    """The part of `files` that watches."""

    _envd: AsyncEnvd

    async def watch_dir(  # noqa: PLR0917 (as in e2b)
        self,
        path: str,
        on_event: OutputHandler[FilesystemEvent],
        on_exit: OutputHandler[Exception | None] | None = None,
        user: Username | None = None,
        request_timeout: float | None = None,
        timeout: float | None = 60,
        recursive: bool = False,
        include_entry: bool = False,
        allow_network_mounts: bool = False,
    ) -> AsyncWatchHandle:
        """Watch a directory, from the moment this returns.

        Args:
            on_event: called with each event, in order; it may be a coroutine function. The next
                event waits until it is done. An error that it raises ends the watch.
            on_exit: called once when the watch ends, with the error that ended it; None after
                `stop` and when the sandbox ended it.
            request_timeout: longest wait for the start, in seconds; 0 for no limit.
            timeout: seconds to watch; 0 for no limit.
            recursive: also watch the directories below it, those to come included.
            include_entry: events bring the entry's details.
            allow_network_mounts: watch network file systems too, whose events may be missing.

        Raises:
            FileNotFoundException: there is no such directory.
            InvalidArgumentException: it is not a directory, or on a network file system.
        """
        message = watch_message(
            path,
            recursive=recursive,
            include_entry=include_entry,
            allow_network_mounts=allow_network_mounts,
        )
        async with opening_limit(self._envd.request_limit(request_timeout)):
            events = await self._envd.stream(
                "filesystem.Filesystem/WatchDir",
                message,
                user=user,
                timeout=timeout,
                errors=FILE_RPC_ERRORS,
            )
            await _expect_start(events)
        return AsyncWatchHandle(events, on_event, on_exit)


class AsyncWatchHandle:
    """A watch that runs; made by `files.watch_dir`."""

    def __init__(
        self,
        events: AsyncEventStream,
        on_event: OutputHandler[FilesystemEvent],
        on_exit: OutputHandler[Exception | None] | None,
    ) -> None:
        self._events = events
        self._on_event = on_event
        self._on_exit = on_exit
        self._watching = True
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop watching; returns when `on_exit` is done. Can be called again, by handlers too."""
        await asyncio.sleep(0)  # a task that is cancelled before it began would not run at all
        if self._watching:
            self._watching = False
            self._task.cancel()
        elif asyncio.current_task() is self._task:
            return  # called by `on_exit`, which cannot wait for itself
        await asyncio.wait([self._task])

    async def _follow(self) -> None:
        failure: Exception | None = None
        try:
            await self._give_events()
        except asyncio.CancelledError:
            pass  # stopped; nobody else has this task
        except Exception as error:  # noqa: BLE001 (given to `on_exit`, whatever it is)
            failure = error
        self._watching = False  # what follows is not for `stop` to cancel
        await self._events.aclose()
        if self._on_exit is not None:
            await call_handler(self._on_exit, failure)

    async def _give_events(self) -> None:
        async for message in self._events:
            happened = nested(message, "filesystem")
            for event in FilesystemEvent.several_from_json([happened] if happened else []):
                await call_handler(self._on_event, event)


async def _expect_start(events: AsyncEventStream) -> None:
    try:
        first: JsonObject = await anext(events, {})
    except BaseException:
        await events.aclose()
        raise
    if nested(first, "start") is None:
        await events.aclose()
        raise SandboxException(f"the watch began with {first!r}, not with its start")
