"""A watch whose changes are kept until its client asks for them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from emberbox.envd.errors import EnvdError, InternalError

if TYPE_CHECKING:
    from emberbox.envd.watching.changes import Change
    from emberbox.envd.watching.watch import Watch

logger = logging.getLogger(__name__)

QUEUE_BYTES = 1024 * 1024
"""What may be kept for one client. Beyond it changes stay in the kernel's queue, and when that is
full too, the kernel drops them and says so."""

_CHANGE_BYTES = 256
_ENTRY_BYTES = 4096
"""An estimate of an entry's, with the texts in it."""


class Poller:
    """Keeps reading, so that new directories are watched at once, not when the client asks."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._queue: deque[Change] = deque()
        self._size = 0
        self._reading = asyncio.Lock()
        self._space = asyncio.Event()
        self._space.set()
        self._failure: EnvdError | None = None
        self._task = asyncio.create_task(self._run())

    async def drain(self) -> list[Change]:
        """All that happened before this call, oldest first; less if it is more than is kept.

        Raises LimitReachedError when events were lost, after all that came before.
        """
        await self._fill()
        if not self._queue and self._failure is not None:
            raise self._failure
        drained = list(self._queue)
        self._queue.clear()
        self._size = 0
        self._space.set()
        return drained

    async def close(self) -> None:
        """Frees everything."""
        self._watch.stop()
        self._space.set()
        await self._task

    async def _run(self) -> None:
        try:
            while self._failure is None and await self._watch.wait(None):
                await self._fill()
                await self._space.wait()
        finally:
            self._watch.close()

    async def _fill(self) -> None:
        async with self._reading:
            try:
                while not self._full and not self._watch.over:
                    changes = await self._watch.take()
                    if changes is None:
                        return
                    for change in changes:
                        self._put(change)
            except EnvdError as error:
                self._fail(error)
            except Exception as error:
                logger.exception("unexpected error in a watcher")
                self._fail(InternalError(f"internal error: {error}"))

    @property
    def _full(self) -> bool:
        return self._size >= QUEUE_BYTES

    def _put(self, change: Change) -> None:
        # As the kernel does: the same again adds nothing, but the entry is newer.
        if self._queue and self._queue[-1][:2] == change[:2]:
            self._queue[-1] = change
            return
        self._queue.append(change)
        self._size += _CHANGE_BYTES + len(change.path) + (_ENTRY_BYTES if change.entry else 0)
        if self._full:
            self._space.clear()

    def _fail(self, error: EnvdError) -> None:
        self._failure = error
        self._watch.stop()
