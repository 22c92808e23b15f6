"""One client's view of a process: a bounded queue between the pipe and the connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox._gen.envd.process.process_pb import ProcessEvent

QUEUE_BYTES = 256 * 1024
"""Output that may wait for one client; beyond it the process is no longer read."""

_EVENT_BYTES = 512
"""What an event takes besides its data: a program may write byte by byte."""


class Listener:
    """Events go in by `put` without waiting and come out by `next`."""

    def __init__(self, on_space: Callable[[], None]) -> None:
        self._on_space = on_space
        self._events: deque[tuple[ProcessEvent, int]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._size = 0
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether the writer should stop until `on_space`."""
        return self._size >= QUEUE_BYTES

    def put(self, event: ProcessEvent, size: int = 0) -> None:
        """Never refuses: the writer looks at `full` before it reads more."""
        self._events.append((event, size + _EVENT_BYTES))
        self._size += size + _EVENT_BYTES
        self._wake()

    def close(self) -> None:
        """The client is gone: `next` returns None and what waits is dropped."""
        self.closed = True
        self._events.clear()
        self._size = 0
        self._wake()

    async def next(self, timeout: float) -> ProcessEvent | None:
        """The next event; None after `timeout` seconds without one, or when closed."""
        if not self._events and not self.closed:
            await self._wait(timeout)
        if not self._events:
            return None
        was_full = self.full
        event, size = self._events.popleft()
        self._size -= size
        if was_full and not self.full:
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
