"""Several API servers: what one program changes the others know at once, and quota is one."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from emberbox.api_server import auth

from .harness import World, eventually, running, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.services import Redis

    from .databases import Databases
    from .standin import Standin


async def emberbox(world: World, *arguments: str) -> str:
    """What the command prints with the settings of a server."""
    settings = world.services.settings
    environment = {
        **os.environ,
        "EMBERBOX_HOME": str(settings.home),
        "EMBERBOX_DATABASE_URL": settings.database_url,
        "EMBERBOX_REDIS_URL": settings.redis_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "emberbox.cli", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_a_revoked_key_is_forgotten_at_once(
    tmp_path: Path, host: Standin, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED", timedelta(days=1))
    settings = settings_for(tmp_path, host, redis_url=redis_server.url)
    async with running(settings, host) as one, running(settings, host) as other:
        for world in (one, other):
            assert world.services.redis is not None
            world.services.redis.start()
            assert (await world.http.get("/v2/sandboxes")).status_code == 200
        (key,) = await one.store.keys.list()

        async def refused() -> bool:
            answers = [await world.http.get("/v2/sandboxes") for world in (one, other)]
            return [answer.status_code for answer in answers] == [401, 401]

        async def listening() -> bool:
            return all(world.services.redis.notices.connected for world in (one, other))  # type: ignore[union-attr]

        await eventually(listening)
        await emberbox(one, "key", "revoke", key.key_id)
        await eventually(refused)


async def test_new_limits_are_known_at_once(
    tmp_path: Path, host: Standin, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED", timedelta(days=1))
    settings = settings_for(tmp_path, host, redis_url=redis_server.url)
    async with running(settings, host) as world:
        assert world.services.redis is not None
        channel = world.services.redis.notices
        channel.start()
        assert (await world.create(timeout=7200)).status_code == 201

        async def listening() -> bool:
            return channel.connected

        async def refused() -> bool:
            return (await world.create(timeout=7200)).status_code == 400

        await eventually(listening)
        redis_server.end()
        redis_server.start()
        await eventually(listening)
        await emberbox(world, "team", "limits", "default", "--max-length-hours", "1")
        await eventually(refused)


async def test_quota_holds_over_several_servers(
    tmp_path: Path, host: Standin, database: Databases
) -> None:
    settings = settings_for(tmp_path, host)
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(running(settings, host)) for _ in range(3)]
        await worlds[0].limit(concurrent_sandboxes=7)
        answers = await asyncio.gather(*(worlds[n % 3].create() for n in range(30)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(201), statuses.count(429)) == (7, 23)
        assert len(host.sandboxes) == 7
