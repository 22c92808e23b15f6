"""Whatever a pool was doing when it was killed: the next one finds all of it, and removes it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from emberbox.orchestrator.network import netns, node
from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.network.pool import SlotPool
from tests.integration.network import busy_pool
from tests.integration.network.test_pool import describe_host
from tests.integration.network.world import TAG, World, make_network

ROOT = Path(__file__).parents[3]
KILLS = 2


async def test_a_crash_leaks_no_slot(world: World, tmp_path: Path, resolv_conf: Path) -> None:
    await crash_and_recover(world, tmp_path, resolv_conf, KILLS)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
async def test_fifty_crashes_leak_no_slot(world: World, tmp_path: Path, resolv_conf: Path) -> None:
    await crash_and_recover(world, tmp_path, resolv_conf, 50)


async def crash_and_recover(world: World, tmp_path: Path, resolv_conf: Path, kills: int) -> None:
    before = netns.run_in(world.host, describe_host)
    found = set()
    for number in range(kills):
        found |= await kill_one_at_work(world, tmp_path, resolv_conf, seed=number)
        pool = SlotPool(
            make_network(), tmp_path / "state", size=2, host=world.host, resolv_conf=resolv_conf
        )
        await pool.start()
        await pool.reclaim(set())
        slot = await pool.acquire(OPEN)
        await pool.release(slot)
        await pool.close(keep=set())
        assert netns.run_in(world.host, lambda: node.indices(make_network())) == set()
        assert netns.run_in(world.host, describe_host) == before
        assert [name for name in netns.names() if name.startswith(f"eb-{TAG}-")] == []
    assert found, "none was killed while it had slots"


async def kill_one_at_work(world: World, tmp_path: Path, resolv_conf: Path, seed: int) -> set[int]:
    """SIGKILL a pool that makes, uses, resets and destroys slots; the slots that were there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", busy_pool.__name__, TAG, str(world.host), str(tmp_path / "state"),
        str(resolv_conf), stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    moment = random.Random(seed)
    for _ in range(moment.randrange(1, 4)):
        assert await process.stdout.readline(), "it ended by itself"
    await asyncio.sleep(moment.random() / 20)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    return netns.run_in(world.host, lambda: node.indices(make_network()))
