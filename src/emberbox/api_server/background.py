"""Work that goes on after an answer: retried until it succeeds, known until it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

log = structlog.get_logger(__name__)

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 10.0


class Background:
    """The tasks of this process that no request awaits."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run `work`; an exception is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def retry(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Run `work` again and again, with growing waits, until it returns or we close."""
        return self.start(self._retry(work, name), name)

    async def close(self, patience: float) -> None:
        """Let what runs end for `patience` seconds, then cancel the rest."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _retry(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                await work()
                return
            except Exception as error:  # noqa: BLE001 - retried, whatever it was
                log.warning("background work failed", work=name, error=repr(error))
            try:
                await asyncio.wait_for(self._closing.wait(), wait)
                return
            except TimeoutError:
                wait = min(wait * 2, _LONGEST_WAIT)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("background work failed", work=task.get_name(), exc_info=error)
