"""How often a team may call a route: GCRA, a leaky bucket that is one moment a team and route.

The limits are counted in Redis where there is one, so that all API servers count together, and in
memory else. When Redis does not answer, nobody is limited.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field

from emberbox.api_server.errors import LimiterUnavailableError, RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = structlog.get_logger(__name__)

EVERY_ROUTE = "*"
_KEY = "emberbox:rate:{team}:{route}"
_MOST_REMEMBERED = 10_000
_ROUNDING = 1e-6


class RateLimit(BaseModel):
    """`rate` calls in `period` seconds, `burst` of them at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int = Field(gt=0)
    burst: int | None = Field(default=None, gt=0, description="none: as many as rate")
    period: float = Field(default=1.0, gt=0)

    @property
    def interval(self) -> float:
        """Seconds that one call takes out of the bucket."""
        return self.period / self.rate

    @property
    def size(self) -> int:
        """Calls at once."""
        return self.burst or self.rate


@dataclass(frozen=True, slots=True)
class Taken:
    """What one call found. `empty_for`: seconds until the bucket is as if nobody had called."""

    allowed: bool
    empty_for: float

    def headers(self, limit: RateLimit) -> dict[str, str]:
        """As the protocol names them (infra 1.2)."""
        left = math.floor(limit.size - self.empty_for / limit.interval + _ROUNDING)
        fields = {
            "RateLimit-Limit": str(limit.size),
            "RateLimit-Remaining": str(max(left, 0) if self.allowed else 0),
            "RateLimit-Reset": str(_up(self.empty_for)),
        }
        if not self.allowed:
            wait = self.empty_for + limit.interval - limit.interval * limit.size
            fields["Retry-After"] = str(max(_up(wait), 1))
        return fields


def _up(seconds: float) -> int:
    return math.ceil(seconds - _ROUNDING)


class Limiter(Protocol):
    """Counts calls."""

    async def take(self, key: str, limit: RateLimit) -> Taken:
        """Count one call, unless it is one too many. Raises LimiterUnavailableError."""
        ...


class LocalLimiter:
    """Counts the calls of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._empty_at: dict[str, float] = {}

    async def take(self, key: str, limit: RateLimit) -> Taken:
        """Count one call, unless it is one too many."""
        now = self._clock()
        empty_at = max(self._empty_at.get(key, now), now)
        after = empty_at + limit.interval
        if after - now > limit.interval * limit.size:
            return Taken(allowed=False, empty_for=empty_at - now)
        if len(self._empty_at) >= _MOST_REMEMBERED:
            self._empty_at = {key: at for key, at in self._empty_at.items() if at > now}
        self._empty_at[key] = after
        return Taken(allowed=True, empty_for=after - now)


class RateLimits:
    """The limits of the settings, by `METHOD /path/{of_the_route}` or `*` for every other."""

    def __init__(self, limits: Mapping[str, RateLimit], limiter: Limiter) -> None:
        self._limits = limits
        self._limiter = limiter
        self._failed = False

    async def check(self, team_id: str, route: str) -> dict[str, str]:
        """Count a call; the fields that its answer carries. Raises RateLimitedError."""
        limit = self._limits.get(route) or self._limits.get(EVERY_ROUTE)
        if limit is None:
            return {}
        name = route if route in self._limits else EVERY_ROUTE
        try:
            taken = await self._limiter.take(_KEY.format(team=team_id, route=name), limit)
        except LimiterUnavailableError as error:
            if not self._failed:  # once, not at every call
                self._failed = True
                log.warning("rate limits are off: Redis does not answer", reason=str(error))
            return {}
        self._failed = False
        if not taken.allowed:
            raise RateLimitedError(name, taken.headers(limit))
        return taken.headers(limit)
