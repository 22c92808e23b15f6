"""A slot that comes back is as one that was never used, or it is not used again."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network import netns, rules, slots, tap
from emberbox.orchestrator.network.addresses import GUEST_ADDRESS, TAP
from emberbox.orchestrator.network.conntrack import Conntrack
from emberbox.orchestrator.network.policy import CLOSED, OPEN
from scripts.fake_internet import PUBLIC
from tests.integration.network import frames
from tests.integration.network.test_isolation import accept, udp_frame
from tests.integration.network.test_pool import indices, until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from tests.integration.network.world import Guest, World


async def test_a_slot_is_used_again_as_if_it_were_new(world: World, pool: SlotPool) -> None:
    await until_ready(pool, 2)
    slot = await pool.acquire(CLOSED)
    new = describe(slot)
    await pool.set_policy(slot, OPEN)
    await use(world, slot)
    assert describe(slot) != new
    unplug(world)
    await pool.release(slot)
    assert slot.index in indices(world)
    assert describe(slot) == new

    world.listen(world.internet, PUBLIC, 81)
    while (again := await pool.acquire(OPEN)) != slot:
        pass
    guest = world.guest(again)
    (await guest.connect(PUBLIC, 81)).close()


async def test_a_slot_that_comes_back_is_closed_before_anybody_has_it(
    world: World, pool: SlotPool
) -> None:
    slot = await pool.acquire(OPEN)
    await pool.release(slot)
    world.listen(world.internet, PUBLIC, 80)
    guest = world.guest(slot)
    with pytest.raises(ConnectionRefusedError):
        await guest.connect(PUBLIC, 80)


async def test_what_was_ready_goes_first(pool: SlotPool) -> None:
    """An address comes back as late as possible."""
    await until_ready(pool, 2)
    first = await pool.acquire(CLOSED)
    await pool.release(first)
    assert (await pool.acquire(CLOSED)).index != first.index


async def test_no_more_are_kept_than_a_multiple_of_the_pool(world: World, pool: SlotPool) -> None:
    await until_ready(pool, 2)
    taken = [await pool.acquire(OPEN) for _ in range(12)]
    await until_ready(pool, 2)
    await asyncio.gather(*(pool.release(slot) for slot in taken))
    assert pool.ready == len(indices(world)) == 8


async def test_a_link_that_its_vmm_has_changed_is_replaced(world: World, pool: SlotPool) -> None:
    """Whoever holds a tap may do more to it than send frames, as a VMM that was taken over."""
    slot = await pool.acquire(CLOSED)
    closed = describe(slot)
    fd = tap.open_tap(slot)
    await run(slot, "ip", "link", "set", TAP, "address", "02:00:00:00:00:99", "mtu", "600")
    os.close(fd)
    await pool.release(slot)
    assert describe(slot) == closed


async def test_a_slot_with_parts_of_a_packet_is_not_used_again(
    world: World, pool: SlotPool
) -> None:
    slot = await pool.acquire(OPEN)
    guest = world.guest(slot)
    receiver = world.listen(world.internet, PUBLIC, 9000, socket.SOCK_DGRAM)
    guest.send_frame(first_fragment())
    guest.send_frame(udp_frame(b"after"))
    assert await asyncio.get_running_loop().sock_recv(receiver, 64) == b"after"
    unplug(world)
    await pool.release(slot)
    assert slot.index not in indices(world)


@pytest.mark.parametrize("sender", ["gateway", "host"])
async def test_what_was_meant_for_the_last_guest_is_not_sent_to_the_next(
    world: World, pool: SlotPool, sender: str
) -> None:
    """A connection sends again what nobody has acknowledged."""
    slot = await pool.acquire(OPEN)
    place = slot.netns_path if sender == "gateway" else world.host
    address = GUEST_ADDRESS if sender == "gateway" else slot.address
    first = world.guest(slot)
    listener = world.listen(first.path, "0.0.0.0", 8000)
    client = netns.run_in(place, socket.socket)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (address, 8000))
    connection, _ = await accept(listener)
    unplug(world)
    client.send(b"for the last guest")
    connection.close()
    await pool.release(slot)
    while await pool.acquire(OPEN) != slot:
        pass
    heard = listen_to_all(world.guest(slot))
    before = netns.run_in(place, segments_sent_again)
    while netns.run_in(place, segments_sent_again) < before + 2:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    with heard, client, pytest.raises(BlockingIOError):
        heard.recv(2048)


async def test_a_slot_that_cannot_be_reset_is_not_used_again(
    world: World, pool: SlotPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await pool.acquire(OPEN)
    monkeypatch.setattr(rules, "slot_rules", lambda *_: "no rules at all")
    await pool.release(slot)
    assert slot.index not in indices(world)


PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.system")


@pytest.fixture(scope="module")
def started() -> Iterator[list[str]]:
    """What starts programs and was called while this list was `watching`."""
    seen: list[str] = []
    watching = True

    def look(event: str, _arguments: object) -> None:
        if watching and event in PROGRAMS:
            seen.append(event)

    sys.addaudithook(look)  # for ever, so it has a switch
    yield seen
    watching = False


async def test_no_program_is_started_to_acquire_a_slot(pool: SlotPool, started: list[str]) -> None:
    await until_ready(pool, 2)
    pool._size = 0  # else the pool fills itself again meanwhile
    await asyncio.sleep(0)
    started.clear()
    slot = await pool.acquire(OPEN)
    await pool.set_policy(slot, CLOSED)
    assert started == []
    netns.run_in(slot.netns_path, tell)
    assert started, "the hook sees nothing"


TELLS = (
    ("ip", "-details", "link"),
    ("ip", "address"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "neigh", "show", "dev", TAP),
    ("nft", "--stateless", "list", "ruleset"),
    ("tc", "qdisc"),
)


def describe(slot: Slot) -> list[str]:
    """All that the kernel tells of a slot, but for the numbers that it gives to links."""
    told = netns.run_in(slot.netns_path, tell)
    return sorted(re.sub(r"^\d+: ", "", line) for line in told)


def tell() -> list[str]:
    lines = []
    for command in TELLS:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        lines += done.stdout.splitlines()
    with Conntrack() as table:
        return [*lines, *map(repr, table.connections())]


async def use(world: World, slot: Slot) -> None:
    """Connections of every kind."""
    guest = world.guest(slot)
    listener = world.listen(world.internet, PUBLIC, 80)
    outside = world.listen(guest.path, "0.0.0.0", 49983)
    with await guest.connect(PUBLIC, 80):
        connection, _ = await accept(listener)
        connection.close()
    with guest.udp() as udp:
        udp.sendto(b"x", (PUBLIC, 9000))
    with await slots.connect(slot, 49983):
        connection, _ = await accept(outside)
        connection.close()


def listen_to_all(guest: Guest) -> socket.socket:
    """All IPv4 that a guest is sent."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        made.setblocking(False)
        return made

    return guest.run(listen)


def segments_sent_again() -> int:
    """Of TCP, in this namespace."""
    names, values = (
        line.split()
        for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    )
    return int(values[names.index("RetransSegs")])


def unplug(world: World) -> None:
    while world.guests:
        world.guests.pop().close()


def first_fragment() -> bytes:
    """The first part of a datagram whose rest never comes."""
    part = frames.udp(b"x" * 64, 9000)
    packet = frames.ipv4(socket.IPPROTO_UDP, part, PUBLIC, fragment=frames.MORE_FRAGMENTS)
    return frames.ethernet(0x0800, packet)


async def run(slot: Slot, *command: str) -> None:
    netns.run_in(slot.netns_path, lambda: subprocess.run(command, check=True))
