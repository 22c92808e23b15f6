"""The catalog of many machines: Redis, with a short memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import structlog

from emberbox.client_proxy.catalog import Place
from emberbox.shared.addresses import parse_address
from emberbox.shared.catalog import CHANNEL, CatalogEntry, key_of
from emberbox.shared.joining import JointCalls
from emberbox.shared.redis_channel import Channel
from emberbox.shared.redis_connection import REDIS_ERRORS, open_redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 5.0
"""An answer is good for so long; a change is told by a notice before."""
_FRESH_WITHOUT_NOTICES = 1.0
_MOST_REMEMBERED = 100_000


class _Known(NamedTuple):
    host: Place
    at: float
    """When it was asked for; minus infinity when it has changed since."""


class RedisCatalog:
    """Looks sandboxes up in Redis. While Redis does not answer, what was known last is taken.

    Must be made in the event loop that it is used in.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._known: dict[str, _Known] = {}
        self._looking: JointCalls[str, Place | None] = JointCalls()
        self._changes = Channel(redis, CHANNEL, self.doubt)
        self._failed = False

    @classmethod
    def open(cls, url: str) -> RedisCatalog:
        """Connect lazily, and listen for changes. Raises StartupError."""
        catalog = cls(open_redis(url))
        catalog._changes.start()
        return catalog

    async def close(self) -> None:
        """Listen no more, return every connection."""
        await self._changes.close()
        await self._looking.close()
        await self._redis.aclose()

    @property
    def hears_changes(self) -> bool:
        """Whether Redis tells of them at this moment."""
        return self._changes.connected

    def find(self, sandbox_id: str) -> Place | None:
        """Its host, when that was asked for a moment ago."""
        known = self._known.get(sandbox_id)
        if known is None:
            return None
        fresh = _FRESH_SECONDS if self.hears_changes else _FRESH_WITHOUT_NOTICES
        return known.host if self._clock() - known.at < fresh else None

    async def look_up(self, sandbox_id: str) -> Place | None:
        """Ask Redis; requests for one sandbox share a question."""
        return await self._looking.call(sandbox_id, lambda: self._ask(sandbox_id))

    def only_host(self) -> Place | None:
        """There are many."""
        return None

    def learn(self, sandbox_id: str, host: Place) -> None:
        """Remember what an API server has said."""
        self._known.pop(sandbox_id, None)
        self._known[sandbox_id] = _Known(host, self._clock())
        if len(self._known) > _MOST_REMEMBERED:
            del self._known[next(iter(self._known))]

    def doubt(self, sandbox_id: str) -> None:
        """Ask again before it is used again."""
        known = self._known.get(sandbox_id)
        if known is not None:
            self._known[sandbox_id] = known._replace(at=float("-inf"))

    async def _ask(self, sandbox_id: str) -> Place | None:
        try:
            found = await self._redis.get(key_of(sandbox_id))
        except REDIS_ERRORS as error:
            if not self._failed:  # once, not at every request
                self._failed = True
                log.warning("Redis does not answer: known hosts are used", error=repr(error))
            known = self._known.get(sandbox_id)
            return known.host if known else None
        self._failed = False
        if found is None:
            self._known.pop(sandbox_id, None)
            return None
        entry = CatalogEntry.decode(str(found))
        host = Place(*parse_address(entry.data_address), entry.execution_id)
        self.learn(sandbox_id, host)
        return host
