"""The pool's bookkeeping against the kernel: nothing is lost, nothing stays behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network import netns, nft, node, rules
from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.network.errors import (
    KernelRefusedError,
    NoFreeSlotError,
    RangeTakenError,
    SlotMissingError,
)
from emberbox.orchestrator.network.links import Links
from emberbox.orchestrator.network.policy import CLOSED, OPEN
from emberbox.orchestrator.network.tap import open_tap
from tests.integration.network.world import RANGE, World, make_network

if TYPE_CHECKING:
    from emberbox.orchestrator.network.pool import SlotPool
    from tests.integration.network.conftest import MakePool

INTERNET = OPEN


def indices(world: World) -> set[int]:
    return netns.run_in(world.host, lambda: node.indices(make_network()))


async def until_ready(pool: SlotPool, count: int) -> None:
    async with asyncio.timeout(20):
        while pool.ready < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_slot_that_is_not_kept_leaves_nothing(world: World, make_pool: MakePool) -> None:
    pool = make_pool(size=0)
    await pool.start()
    slot = await pool.acquire(INTERNET)
    await pool.release(slot)
    assert indices(world) == set()
    assert not slot.netns_path.exists()
    await pool.close(keep=set())


async def test_many_at_once_get_slots_of_their_own(pool: SlotPool) -> None:
    taken = await asyncio.gather(*(pool.acquire(INTERNET) for _ in range(12)))
    assert len({slot.index for slot in taken}) == 12
    assert len({slot.address for slot in taken}) == 12
    await asyncio.gather(*(pool.release(slot) for slot in taken))


async def test_indices_go_round(pool: SlotPool) -> None:
    await until_ready(pool, 2)
    first = await pool.acquire(CLOSED)
    await pool.release(first)
    second = await pool.acquire(CLOSED)
    assert second.index != first.index


async def test_restart_adopts_and_reclaims(world: World, make_pool: MakePool) -> None:
    before = make_pool(size=2)
    await before.start()
    used, lost = [await before.acquire(INTERNET) for _ in range(2)]
    await until_ready(before, 2)
    # As a crash: nothing is closed, and the pool's own slots stay behind.
    await before.close(keep=indices(world))

    after = make_pool(size=2)
    await after.start()
    assert await after.adopt(used.index, INTERNET) == used
    await after.reclaim({used.index})
    assert used.index in indices(world)
    assert lost.index not in indices(world)
    await until_ready(after, 2)
    assert len(indices(world)) == 3
    await after.close(keep=set())
    assert indices(world) == set()


async def test_reclaim_removes_half_made_slots(world: World, pool: SlotPool) -> None:
    await until_ready(pool, 2)
    network = make_network()
    only_name, only_link = network.slot(90), network.slot(91)
    netns.create(only_name.netns)
    netns.create(only_link.netns)
    with only_link.netns_path.open() as inside:
        netns.run_in(world.host, lambda: add_link(only_link.link, inside.fileno()))
    stale = network.slot(92).netns_path
    stale.touch()
    assert {90, 91, 92} <= indices(world)
    await pool.reclaim(set())
    assert not {90, 91, 92} & indices(world)


async def test_adopting_what_is_gone_is_an_error(pool: SlotPool) -> None:
    with pytest.raises(SlotMissingError, match="link"):
        await pool.adopt(77, INTERNET)


async def test_cancelled_acquire_loses_no_slot(world: World, make_pool: MakePool) -> None:
    pool = make_pool(size=0)
    await pool.start()
    acquiring = asyncio.create_task(pool.acquire(INTERNET))
    await asyncio.sleep(0)
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    await until_ready(pool, 1)
    assert len(indices(world)) == 1
    await pool.close(keep=set())


async def test_full_range_is_an_error_until_one_is_released(make_pool: MakePool) -> None:
    small = NodeNetwork(make_network().tag, next(RANGE.subnets(new_prefix=28)))
    pool = make_pool(size=0, network=small)
    await pool.start()
    taken = [await pool.acquire(CLOSED) for _ in range(small.capacity)]
    with pytest.raises(NoFreeSlotError, match="6 network slots"):
        await pool.acquire(CLOSED)
    await pool.release(taken[0])
    assert (await pool.acquire(CLOSED)).index == taken[0].index
    await pool.close(keep=set())


async def test_range_of_another_link_is_refused(world: World, make_pool: MakePool) -> None:
    netns.run_in(world.host, lambda: add_address("uplink", "10.77.0.200"))
    with pytest.raises(RangeTakenError, match="EMBERBOX_NETWORK_RANGE"):
        await make_pool().start()


async def test_tap_is_opened_once_and_again(pool: SlotPool) -> None:
    slot = await pool.acquire(CLOSED)
    fd = open_tap(slot)
    with pytest.raises(KernelRefusedError) as refused:
        open_tap(slot)
    assert refused.value.errno == errno.EBUSY
    os.close(fd)
    os.close(open_tap(slot))


async def test_close_restores_the_host(world: World, make_pool: MakePool) -> None:
    before = netns.run_in(world.host, describe_host)
    pool = make_pool(size=2)
    await pool.start()
    await pool.acquire(INTERNET)
    assert netns.run_in(world.host, describe_host) != before
    await pool.close(keep=set())
    assert netns.run_in(world.host, describe_host) == before


async def test_failed_making_leaves_nothing(
    world: World, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(size=0)
    await pool.start()
    monkeypatch.setattr(rules, "slot_rules", lambda *_: "no rules at all")
    with pytest.raises(Exception, match="nft did not accept"):
        await pool.acquire(INTERNET)
    assert indices(world) == set()
    await pool.close(keep=set())


def describe_host() -> tuple[list[str], list[str]]:
    names = [name for _, name in socket.if_nameindex()]
    with Links() as links:
        addresses = [address for address, _ in links.addresses()]
    return [*names, *addresses], [chain["table"] for chain in nft.base_chains()]


def add_link(name: str, netns_fd: int) -> None:
    with Links() as links:
        links.add_veth(name, "eth0", netns_fd)


def add_address(link: str, address: str) -> None:
    with Links() as links:
        links.add_address(links.index(link), address, 24)
