"""All watches of envd: how many there may be, and which ones are polled."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.envd.errors import LimitReachedError, NotFoundError
from emberbox.envd.watching.poller import Poller
from emberbox.envd.watching.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emberbox.envd.users import User
    from emberbox.envd.watching.changes import Change, Options
    from emberbox.envd.workers import Workers

MAX_WATCHES = 64
"""Streams and pollers together. The kernel's default is 128 queues for a user."""

IDLE_SECONDS = 1800.0
"""A watcher that is not polled for so long is removed: its client is gone."""


@dataclass(slots=True)
class _Polled:
    poller: Poller
    expiry: asyncio.TimerHandle


class Watchers:
    """All methods run on the event loop."""

    def __init__(self, workers: Workers, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._workers = workers
        self._idle_seconds = idle_seconds
        self._streams = 0
        self._opening = 0
        self._polled: dict[str, _Polled] = {}
        self._removals: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def stream(self, options: Options, user: User) -> AsyncIterator[Watch]:
        """A watch for the time of the block. Raises EnvdError."""
        watch = await self._open(options, user)
        self._streams += 1
        try:
            yield watch
        finally:
            self._streams -= 1
            watch.close()

    async def create(self, options: Options, user: User) -> str:
        """A polled watch; its id. Raises EnvdError."""
        poller = Poller(await self._open(options, user))
        watcher_id = f"w{secrets.token_hex(8)}"
        self._polled[watcher_id] = _Polled(poller, self._expire_later(watcher_id))
        return watcher_id

    async def drain(self, watcher_id: str) -> list[Change]:
        """What happened since the last call. Raises NotFoundError, or LimitReachedError."""
        found = self._find(watcher_id)
        found.expiry.cancel()
        found.expiry = self._expire_later(watcher_id)
        return await found.poller.drain()

    async def remove(self, watcher_id: str) -> None:
        """Raises NotFoundError."""
        found = self._find(watcher_id)
        del self._polled[watcher_id]
        found.expiry.cancel()
        await found.poller.close()

    async def _open(self, options: Options, user: User) -> Watch:
        if self._streams + self._opening + len(self._polled) >= MAX_WATCHES:
            raise LimitReachedError(
                f"{MAX_WATCHES} directories are watched already: end a stream or remove a watcher"
            )
        watch = Watch(options, user, self._workers)
        self._opening += 1
        try:
            await watch.open()
        except BaseException:
            watch.close()
            raise
        finally:
            self._opening -= 1
        return watch

    def _find(self, watcher_id: str) -> _Polled:
        found = self._polled.get(watcher_id)
        if found is None:
            raise NotFoundError(f"watcher with id {watcher_id} not found")
        return found

    def _expire_later(self, watcher_id: str) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(self._idle_seconds, self._expire, watcher_id)

    def _expire(self, watcher_id: str) -> None:
        removal = asyncio.create_task(self.remove(watcher_id))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
