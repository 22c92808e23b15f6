"""A guest's bandwidth: how fast it sends and receives is bounded in its slot."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import socket
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network.addresses import UPLINK
from emberbox.orchestrator.network.policy import OPEN
from scripts.fake_internet import PUBLIC
from tests.integration.network.test_isolation import accept, run_tool, udp_frame
from tests.integration.network.world import World, make_network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emberbox.orchestrator.network.addresses import NodeNetwork, Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from tests.integration.network.conftest import MakePool

RATE = 125_000
"""Bytes a second."""


def limited(rate: int | None) -> NodeNetwork:
    return dataclasses.replace(make_network(), bandwidth=rate)


@pytest.fixture
async def slow(make_pool: MakePool) -> AsyncIterator[SlotPool]:
    pool = make_pool(network=limited(RATE))
    await pool.start()
    yield pool
    await pool.close(keep=set())


async def rates(slot: Slot) -> dict[str, str]:
    told = await run_tool(slot.netns_path, "", "tc", "qdisc")
    return dict(re.findall(r"qdisc tbf \w+: dev (\w+) root .*?rate (\w+)", told))


async def test_both_directions_are_limited(slow: SlotPool) -> None:
    slot = await slow.acquire(OPEN)
    assert await rates(slot) == {"tap0": "1Mbit", "eth0": "1Mbit"}


async def test_a_limit_lasts_through_reuse_and_changes_with_the_setting(
    slow: SlotPool, make_pool: MakePool
) -> None:
    slot = await slow.acquire(OPEN)
    await slow.release(slot)
    assert set(await rates(slot)) == {"tap0", "eth0"}
    while await slow.acquire(OPEN) != slot:
        pass
    for rate, expected in ((4 * RATE, {"tap0": "4Mbit", "eth0": "4Mbit"}), (None, {})):
        await slow.close(keep={slot.index})
        again = make_pool(network=limited(rate))
        await again.start()
        await again.adopt(slot.index, OPEN)
        assert await rates(slot) == expected
        await again.close(keep={slot.index})


async def test_what_is_above_the_rate_is_dropped(world: World, slow: SlotPool) -> None:
    """Sent at once: as much as the rate allows in 40 seconds."""
    world.listen(world.internet, PUBLIC, 9000, socket.SOCK_DGRAM)
    slot = await slow.acquire(OPEN)
    guest = world.guest(slot)
    count = 40 * RATE // 1000
    for _ in range(count):
        guest.send_frame(udp_frame(bytes(1000)))
    told = await run_tool(slot.netns_path, "", "tc", "-s", "qdisc", "show", "dev", UPLINK)
    found = re.search(r"Sent \d+ bytes (\d+) pkt \(dropped (\d+)", told)
    assert found
    sent, dropped = map(int, found.groups())
    assert 0 < sent < dropped
    assert dropped > count / 2


async def test_a_download_comes_whole(world: World, slow: SlotPool) -> None:
    """What waits is not lost: TCP finds its rate."""
    listener = world.listen(world.internet, PUBLIC, 80)
    guest = world.guest(await slow.acquire(OPEN))
    loop = asyncio.get_running_loop()
    data = bytes(range(256)) * (RATE // 512)
    with await guest.connect(PUBLIC, 80) as client:
        connection, _ = await accept(listener)
        with connection:
            sending = asyncio.create_task(loop.sock_sendall(connection, data))
            received = bytearray()
            while len(received) < len(data):
                received += await loop.sock_recv(client, 65536)
            await sending
    assert received == data
