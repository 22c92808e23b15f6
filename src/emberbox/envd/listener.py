"""One client's view of a process: a bounded queue between the pipe and the connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from emberbox.envd.errors import LimitReachedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox._gen.envd.process.process_pb import ProcessEvent

MAX_STREAMS: Final = 512
"""Clients that follow processes, in the whole sandbox."""

QUEUE_BYTES: Final = 256 * 1024
"""Output that may wait for one client; beyond it the process is no longer read."""

ALL_QUEUES_BYTES: Final = 8 * 1024 * 1024
"""Output that may wait for all clients; with many of them each has a smaller share."""

_EVENT_BYTES = 512
"""What an event takes besides its data: a program may write byte by byte."""


class Listeners:
    """Counts all clients of all processes and gives each its share of memory."""

    def __init__(self) -> None:
        self.open = 0

    @property
    def share(self) -> int:
        """Bytes that one queue may hold."""
        return min(QUEUE_BYTES, ALL_QUEUES_BYTES // max(self.open, 1))

    def check_room(self) -> None:
        """Raises LimitReachedError when there is no room for one more."""
        if self.open >= MAX_STREAMS:
            raise LimitReachedError(
                f"{MAX_STREAMS} streams of processes are open: close some of them first"
            )

    def enter(self) -> None:
        """One more. Raises LimitReachedError."""
        self.check_room()
        self.open += 1

    def leave(self) -> None:
        """One less."""
        self.open -= 1


class Listener:
    """Events go in by `put` without waiting and come out by `next`.

    Raises LimitReachedError when there are too many.
    """

    def __init__(self, all_listeners: Listeners, on_space: Callable[[], None]) -> None:
        all_listeners.enter()
        self._all = all_listeners
        self._on_space = on_space
        self._events: deque[tuple[ProcessEvent, int]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._size = 0
        self.full = False
        """Whether the writer should stop until `on_space`."""
        self.taken = 0
        """Events that the client took so far."""
        self.closed = False
        self.left_behind = False
        """Whether it was closed because its client did not read."""

    def put(self, event: ProcessEvent, size: int = 0) -> None:
        """Never refuses: the writer looks at `full` before it reads more."""
        self._events.append((event, size + _EVENT_BYTES))
        self._size += size + _EVENT_BYTES
        self.full = self._size >= self._all.share
        self._wake()

    def leave_behind(self) -> None:
        """The process goes on without this client."""
        self.left_behind = True
        self.close()

    def close(self) -> None:
        """The client is gone: `next` returns None and what waits is dropped."""
        if self.closed:
            return
        self.closed = True
        self.full = False
        self._all.leave()
        self._events.clear()
        self._size = 0
        self._wake()

    async def next(self, timeout: float) -> ProcessEvent | None:
        """The next event; None after `timeout` seconds without one, or when closed."""
        if not self._events and not self.closed:
            await self._wait(timeout)
        if not self._events:
            return None
        event, size = self._events.popleft()
        self._size -= size
        self.taken += 1
        if self.full and self._size < self._all.share:
            self.full = False
            self._on_space()
        return event

    async def _wait(self, timeout: float) -> None:
        # Not asyncio.wait_for: it costs a task for every event.
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(timeout, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
