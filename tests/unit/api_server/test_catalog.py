"""The catalog in a real Redis: written, removed by execution, rebuilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox.shared.catalog import CatalogEntry, key_of

from .harness import World, eventually, running, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.services import Redis

    from .standin import Standin


@pytest.fixture
async def listed(tmp_path: Path, host: Standin, redis_server: Redis) -> AsyncIterator[World]:
    """A server that shares a Redis."""
    host.data_address = "192.0.2.7:5007"
    async with running(settings_for(tmp_path, host, redis_url=redis_server.url), host) as world:
        yield world


def entry(redis_server: Redis, sandbox_id: str) -> CatalogEntry | None:
    text = redis_server.command("GET", key_of(sandbox_id)).strip()
    return CatalogEntry.decode(text) if text else None


async def test_an_entry_is_there_with_the_answer_and_goes_with_the_sandbox(
    listed: World, redis_server: Redis
) -> None:
    sandbox_id = await listed.created()
    row = await listed.row(sandbox_id)
    assert entry(redis_server, sandbox_id) == (row.execution_id, "192.0.2.7:5007", "node-1")
    await listed.http.delete(f"/sandboxes/{sandbox_id}")

    async def gone() -> bool:
        return entry(redis_server, sandbox_id) is None

    await eventually(gone)


async def test_a_paused_one_has_none_until_it_is_resumed(
    listed: World, redis_server: Redis
) -> None:
    sandbox_id = await listed.created()
    await listed.http.post(f"/sandboxes/{sandbox_id}/pause", json={})

    async def gone() -> bool:
        return entry(redis_server, sandbox_id) is None

    await eventually(gone)
    await listed.http.post(f"/sandboxes/{sandbox_id}/connect", json={})
    found = entry(redis_server, sandbox_id)
    assert found is not None
    assert found.execution_id == (await listed.row(sandbox_id)).execution_id


async def test_an_entry_of_a_later_run_is_not_removed(listed: World, redis_server: Redis) -> None:
    sandbox_id = await listed.created()
    later = CatalogEntry("another run", "192.0.2.8:5007", "node-2").encode()
    redis_server.command("SET", key_of(sandbox_id), later)
    assert listed.services.redis is not None
    await listed.services.redis.catalog.remove(await listed.row(sandbox_id))
    assert redis_server.command("GET", key_of(sandbox_id)).strip() == later


async def test_it_is_rebuilt_from_the_hosts(
    listed: World, host: Standin, redis_server: Redis
) -> None:
    sandbox_ids = [await listed.created() for _ in range(3)]
    for sandbox_id in sandbox_ids:
        await listed.becomes(sandbox_id, "running")
    del host.sandboxes[sandbox_ids[2]]
    redis_server.command("FLUSHALL")
    wrong = CatalogEntry("an older run", "192.0.2.8:5007", "node-2").encode()
    redis_server.command("SET", key_of(sandbox_ids[1]), wrong)
    (node,) = listed.services.nodes.all()
    await listed.services.reconciler.check(node)
    for sandbox_id in sandbox_ids[:2]:
        found = entry(redis_server, sandbox_id)
        assert found is not None
        assert found.execution_id == host.sandboxes[sandbox_id].execution_id
    assert entry(redis_server, sandbox_ids[2]) is None


async def test_without_redis_sandboxes_are_made_all_the_same(
    listed: World, redis_server: Redis
) -> None:
    redis_server.end()
    sandbox_id = await listed.created()
    redis_server.start()
    await listed.becomes(sandbox_id, "running")
    (node,) = listed.services.nodes.all()
    await listed.services.reconciler.check(node)
    assert entry(redis_server, sandbox_id) is not None
