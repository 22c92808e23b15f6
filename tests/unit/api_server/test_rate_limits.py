"""Rate limits: by team and route, in memory and in Redis, and off when Redis does not answer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from emberbox.api_server.rate_limits import LocalLimiter, RateLimit
from emberbox.api_server.settings import Settings
from emberbox.shared import redis_connection

from .harness import World, running, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.services import Redis

    from .standin import Standin

SLOW = {"rate": 3, "burst": 2, "period": 3600}
LIST = "GET /v2/sandboxes"


@pytest.fixture(autouse=True)
def _time_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it answers later than users should have to wait for their limits."""
    monkeypatch.setattr(redis_connection, "_SECONDS", 20.0)


@asynccontextmanager
async def limited(home: Path, host: Standin, **settings: Any) -> AsyncIterator[World]:
    async with running(settings_for(home, host, rate_limits={LIST: SLOW}, **settings), host) as one:
        yield one


async def statuses(world: World, count: int, path: str = "/v2/sandboxes") -> list[int]:
    return [(await world.http.get(path)).status_code for _ in range(count)]


async def test_headers_and_the_refusal(tmp_path: Path, host: Standin) -> None:
    async with limited(tmp_path, host) as world:
        first = await world.http.get("/v2/sandboxes")
        assert first.status_code == 200
        assert first.headers["RateLimit-Limit"] == "2"
        assert first.headers["RateLimit-Remaining"] == "1"
        assert first.headers["RateLimit-Reset"] == "1200"
        wrong = await world.http.get("/v2/sandboxes", params={"limit": "none"})
        assert (wrong.status_code, wrong.headers["RateLimit-Remaining"]) == (400, "0")
        refused = await world.http.get("/v2/sandboxes")
        assert refused.status_code == 429
        assert refused.json() == {
            "code": 429,
            "message": f"Rate limit of {LIST} exceeded: try again in 1200 s",
            "error_code": "rate_limited",
        }
        assert refused.headers["Retry-After"] == "1200"
        assert refused.headers["RateLimit-Remaining"] == "0"
        assert refused.headers["RateLimit-Reset"] == "2400"


async def test_each_team_and_each_route_has_its_own(tmp_path: Path, host: Standin) -> None:
    async with limited(tmp_path, host) as world:
        assert await statuses(world, 3) == [200, 200, 429]
        assert "RateLimit-Limit" not in (await world.http.get("/sandboxes")).headers
        async with await world.other_team() as other:
            assert (await other.get("/v2/sandboxes")).status_code == 200


async def test_one_limit_for_all_other_routes(tmp_path: Path, host: Standin) -> None:
    settings = settings_for(tmp_path, host, rate_limits={"*": SLOW})
    async with running(settings, host) as world:
        assert await statuses(world, 1) == [200]
        assert await statuses(world, 2, "/sandboxes/iunknown") == [404, 429]
        refused = await world.http.get("/sandboxes")
        assert refused.json()["message"].startswith("Rate limit of the API exceeded")


async def test_servers_count_together(tmp_path: Path, host: Standin, redis_server: Redis) -> None:
    url = redis_server.url
    async with (
        limited(tmp_path, host, redis_url=url) as one,
        limited(tmp_path, host, redis_url=url) as other,
    ):
        assert await statuses(one, 1) == [200]
        last = await other.http.get("/v2/sandboxes")
        assert (last.status_code, last.headers["RateLimit-Remaining"]) == (200, "0")
        assert await statuses(one, 1) == [429]
        refused = await other.http.get("/v2/sandboxes")
        assert refused.headers["Retry-After"] in ("1199", "1200")


async def test_without_redis_nobody_is_limited(
    tmp_path: Path, host: Standin, redis_server: Redis
) -> None:
    async with limited(tmp_path, host, redis_url=redis_server.url) as world:
        assert await statuses(world, 3) == [200, 200, 429]
        redis_server.end()
        assert await statuses(world, 4) == [200] * 4
        redis_server.start()
        assert await statuses(world, 3) == [200, 200, 429]


async def test_calls_come_back_with_time() -> None:
    now = 0.0
    limiter, limit = LocalLimiter(lambda: now), RateLimit(rate=10, burst=3, period=1)

    async def allowed(count: int) -> list[bool]:
        return [(await limiter.take("key", limit)).allowed for _ in range(count)]

    assert await allowed(4) == [True, True, True, False]
    now = 0.11
    assert await allowed(2) == [True, False]
    now = 10
    assert await allowed(4) == [True, True, True, False]


@pytest.mark.parametrize(
    "value", [{"rate": 0}, {"rate": 1, "period": 0}, {"rate": 1, "brust": 2}, "x"]
)
def test_wrong_limits(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValidationError, match="rate_limits"):
        Settings(home=tmp_path, rate_limits={"*": value})  # type: ignore[dict-item]
