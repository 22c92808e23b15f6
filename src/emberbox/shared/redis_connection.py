"""The connection to Redis, for programs that run on several machines."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import RedisError

from emberbox.shared.errors import StartupError

REDIS_ERRORS = (RedisError, OSError, TimeoutError)
"""What a call raises when Redis does not answer, or not as it should."""

_SECONDS = 1.0
"""For one connection or one answer: what Redis is for must never wait long for it."""
_IDLE_CHECK = 15


def open_redis(url: str) -> Redis:
    """A pool of connections, made when they are needed. Raises StartupError for a wrong URL."""
    try:
        return Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=_SECONDS,
            socket_timeout=_SECONDS,
            health_check_interval=_IDLE_CHECK,
        )
    except ValueError as error:
        raise StartupError(f"EMBERBOX_REDIS_URL cannot be used: {error}") from error
