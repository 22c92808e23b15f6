"""Create whose answer never comes: nothing leaks, and the client is told not to repeat it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from .harness import World, eventually, running, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .standin import Standin


@pytest.fixture
async def hasty(tmp_path: Path, host: Standin) -> AsyncIterator[World]:
    """An API server that waits for a create a moment only."""
    settings = settings_for(tmp_path, host, create_timeout=0.3, connect_timeout=0.3)
    async with running(settings, host) as made:
        yield made


async def test_a_deadline_keeps_the_reservation_until_the_host_confirms(hasty: World) -> None:
    hasty.host.hold_create = asyncio.Event()
    hasty.host.hold_delete = asyncio.Event()
    answer = await hasty.create()
    assert answer.status_code == 504
    assert answer.json()["error_code"] == "sandbox_placement_timeout"
    assert answer.json()["message"].startswith("Failed to place sandbox: node-1: ")
    assert answer.headers["Should-Retry"] == "false"
    (row,) = await hasty.rows()
    assert row.state == "killing"
    hasty.host.hold_delete.set()
    await hasty.becomes(row.sandbox_id, "killed")
    assert hasty.host.sandboxes == {}
    assert await hasty.rows() == []


async def test_a_lost_connection_keeps_the_reservation_until_the_host_is_back(
    hasty: World,
) -> None:
    hasty.host.hold_create = asyncio.Event()
    creating = asyncio.create_task(hasty.create())
    await hasty.host.create_began.wait()
    await hasty.host.stop()
    answer = await creating
    assert answer.status_code == 503
    assert answer.headers["Should-Retry"] == "false"
    assert "connection lost" in answer.json()["message"]
    (row,) = await hasty.rows()
    assert row.state == "killing"
    assert len(hasty.host.sandboxes) == 1
    await hasty.host.start()
    await hasty.becomes(row.sandbox_id, "killed")
    assert hasty.host.sandboxes == {}


async def test_a_host_that_is_away_is_named_and_nothing_is_reserved(hasty: World) -> None:
    await hasty.created()
    await hasty.host.stop()
    answer = await hasty.create()
    assert answer.status_code == 503
    assert answer.json() == {
        "code": 503,
        "message": "Failed to place sandbox: node-1: the orchestrator does not answer at "
        + hasty.host.address,
        "error_code": "sandbox_capacity_unavailable",
    }
    assert len(await hasty.rows()) == 1


async def test_an_unknown_template_while_the_host_is_away_is_not_called_unknown(
    hasty: World,
) -> None:
    await hasty.host.stop()
    assert (await hasty.create()).status_code == 503


async def test_a_kill_while_the_host_is_away_is_finished_later(hasty: World) -> None:
    sandbox_id = await hasty.created()
    await hasty.becomes(sandbox_id, "running")
    await hasty.host.stop()
    answer = await hasty.http.delete(f"/sandboxes/{sandbox_id}")
    assert answer.status_code == 503
    assert answer.json()["error_code"] == "sandbox_node_unavailable"
    assert (await hasty.row(sandbox_id)).state == "killing"
    await hasty.host.start()
    node = hasty.services.nodes.all()[0]
    await hasty.services.reconciler.check(node)
    assert (await hasty.row(sandbox_id)).state == "killed"


async def test_a_kill_right_after_a_restart(tmp_path: Path, host: Standin) -> None:
    settings = settings_for(tmp_path, host)
    async with running(settings, host) as world:
        sandbox_id = await world.created()
    async with running(settings, host) as world:
        assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 204


async def test_a_wrong_internal_secret_is_named(tmp_path: Path, host: Standin) -> None:
    async with running(settings_for(tmp_path, host), host) as world:
        await world.created()
        world.services.nodes.all()[0]._metadata = (("x-emberbox-secret", "wrong"),)
        answer = await world.create()
    assert answer.status_code == 503
    assert "EMBERBOX_INTERNAL_SECRET_FILE" in answer.json()["message"]


async def test_a_refusal_moves_the_reservation_to_another_host(
    tmp_path: Path, host: Standin
) -> None:
    other = type(host)(node_id="node-2", capacity=0)
    await other.start()
    settings = settings_for(tmp_path, other, host)
    try:
        async with running(settings, host) as world:
            ids = [await world.created() for _ in range(4)]
            assert sorted(ids) == sorted(host.sandboxes)
            for sandbox_id in ids:
                row = await world.becomes(sandbox_id, "running")
                assert row.node_id == "node-1"
                assert host.sandboxes[sandbox_id].execution_id == row.execution_id
            host.capacity = 0
            answer = await world.create()
            assert answer.status_code == 503
            assert "node-1: no memory left" in answer.json()["message"]
            assert "node-2: no memory left" in answer.json()["message"]
            await eventually(lambda: _count(world, 4))
    finally:
        await other.stop()


async def _count(world: World, count: int) -> bool:
    return len(await world.rows()) == count
