"""What an API server has of Redis, where several share one. Imported only then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from emberbox.api_server import notices
from emberbox.api_server.errors import LimiterUnavailableError
from emberbox.api_server.rate_limits import Taken
from emberbox.api_server.redis_catalog import RedisCatalog
from emberbox.shared.redis_channel import Channel
from emberbox.shared.redis_connection import REDIS_ERRORS, open_redis

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from emberbox.api_server.auth import Authenticator
    from emberbox.api_server.nodes import KnownNodes
    from emberbox.api_server.rate_limits import RateLimit
    from emberbox.api_server.store.sandboxes import SandboxStore

_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local empty_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local after = empty_at + ARGV[1]
if after - now > tonumber(ARGV[2]) then return {0, tostring(empty_at - now)} end
redis.call('SET', KEYS[1], string.format('%.6f', after), 'PX', math.ceil((after - now) * 1000))
return {1, tostring(after - now)}
"""
"""`LocalLimiter.take` as one step of Redis, by its clock."""


@dataclass(frozen=True, slots=True)
class RedisParts:
    """One connection pool and what stands on it."""

    redis: Redis
    notices: Channel
    limiter: RedisLimiter
    catalog: RedisCatalog

    @classmethod
    def open(
        cls, url: str, authenticator: Authenticator, nodes: KnownNodes, store: SandboxStore
    ) -> Self:
        """Connect lazily. Raises StartupError."""
        redis = open_redis(url)
        channel = Channel(redis, notices.CHANNEL, authenticator.noticed)
        return cls(redis, channel, RedisLimiter(redis), RedisCatalog(redis, nodes, store))

    def start(self) -> None:
        """Begin to listen."""
        self.notices.start()

    async def close(self) -> None:
        """Listen no more, return every connection."""
        await self.notices.close()
        await self.redis.aclose()


class RedisLimiter:
    """Counts the calls of all API servers."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)

    async def take(self, key: str, limit: RateLimit) -> Taken:
        """Count one call, unless it is one too many. Raises LimiterUnavailableError."""
        most = limit.interval * limit.size
        try:
            allowed, empty_for = await self._take(keys=[key], args=[limit.interval, most])
        except REDIS_ERRORS as error:
            raise LimiterUnavailableError(repr(error)) from error
        return Taken(allowed=bool(allowed), empty_for=float(empty_for))
