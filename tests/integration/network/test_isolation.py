"""What a guest reaches and what it does not, tried from a guest's own network stack."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network import netns, slots
from emberbox.orchestrator.network.addresses import (
    GATEWAY_ADDRESS,
    GATEWAY_MAC,
    GUEST_ADDRESS,
)
from emberbox.orchestrator.network.policy import CLOSED, EVERYTHING, OPEN, EgressPolicy
from emberbox.orchestrator.network.pool import SlotPool
from scripts.fake_internet import HOST_PUBLIC, INTERNET_ADDRESSES, OTHER, PUBLIC
from tests.integration.network import frames
from tests.integration.network.world import World, make_network

if TYPE_CHECKING:
    from pathlib import Path

INTERNET = OPEN


def tcp_client(where: Path) -> socket.socket:
    client = netns.run_in(where, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    client.setblocking(False)
    return client


async def accept(listener: socket.socket) -> tuple[socket.socket, str]:
    connection, peer = await asyncio.get_running_loop().sock_accept(listener)
    return connection, peer[0]


async def test_guest_reaches_the_internet_as_the_host(world: World, pool: SlotPool) -> None:
    listener = world.listen(world.internet, PUBLIC, 80)
    guest = world.guest(await pool.acquire(INTERNET))
    loop = asyncio.get_running_loop()
    with await guest.connect(PUBLIC, 80) as client:
        connection, source = await accept(listener)
        with connection:
            assert source == HOST_PUBLIC
            await loop.sock_sendall(client, b"x" * 200_000)
            received = 0
            while received < 200_000:
                received += len(await loop.sock_recv(connection, 65536))


async def test_no_internet_closes_everything(world: World, pool: SlotPool) -> None:
    world.listen(world.internet, PUBLIC, 80)
    guest = world.guest(await pool.acquire(CLOSED))
    with pytest.raises(ConnectionRefusedError):
        await guest.connect(PUBLIC, 80)


@pytest.mark.parametrize("address", [a for a in INTERNET_ADDRESSES if a != PUBLIC])
async def test_closed_ranges_are_refused(world: World, pool: SlotPool, address: str) -> None:
    world.listen(world.internet, address, 80)
    guest = world.guest(await pool.acquire(INTERNET))
    with pytest.raises(ConnectionRefusedError):
        await guest.connect(address, 80)


async def test_host_is_closed(world: World, pool: SlotPool) -> None:
    slot = await pool.acquire(INTERNET)
    guest = world.guest(slot)
    for address in (HOST_PUBLIC, slot.host_address, pool.network.dns_address):
        world.listen(world.host, address, 8080)
        with pytest.raises(ConnectionRefusedError):
            await guest.connect(address, 8080)


async def test_service_that_the_host_publishes_by_dnat_is_closed(
    world: World, pool: SlotPool
) -> None:
    """Docker publishes ports so: the packet leaves by forwarding and never meets INPUT."""
    world.listen(world.internet, "192.168.50.1", 80)
    await run_nft(
        world.host,
        "table ip publishing { chain prerouting { type nat hook prerouting priority dstnat;\n"
        f"ip daddr {HOST_PUBLIC} tcp dport 8080 dnat to 192.168.50.1:80\n}}\n}}\n",
    )
    guest = world.guest(await pool.acquire(INTERNET))
    with pytest.raises(ConnectionRefusedError):
        await guest.connect(HOST_PUBLIC, 8080)


async def test_guests_do_not_reach_one_another(world: World, pool: SlotPool) -> None:
    first, second = [world.guest(await pool.acquire(INTERNET)) for _ in range(2)]
    world.listen(second.path, GUEST_ADDRESS, 80)
    for address in (second.slot.address, second.slot.host_address):
        with pytest.raises(ConnectionRefusedError):
            await first.connect(address, 80)


async def test_gateway_offers_nothing_but_dns(world: World, pool: SlotPool) -> None:
    slot = await pool.acquire(INTERNET)
    guest = world.guest(slot)
    world.listen(slot.netns_path, GATEWAY_ADDRESS, 8080)
    with pytest.raises(ConnectionRefusedError):
        await guest.connect(GATEWAY_ADDRESS, 8080)


async def test_host_reaches_guest_with_its_veth_as_source(world: World, pool: SlotPool) -> None:
    slot = await pool.acquire(CLOSED)
    guest = world.guest(slot)
    listener = world.listen(guest.path, "0.0.0.0", 49983)
    with tcp_client(world.host) as client:
        await asyncio.get_running_loop().sock_connect(client, (slot.address, 49983))
        connection, source = await accept(listener)
        with connection:
            assert source == slot.host_address
            await asyncio.get_running_loop().sock_sendall(connection, b"hello")
            assert await asyncio.get_running_loop().sock_recv(client, 16) == b"hello"


async def test_orchestrator_reaches_guest_as_the_gateway(world: World, pool: SlotPool) -> None:
    slot = await pool.acquire(CLOSED)
    guest = world.guest(slot)
    listener = world.listen(guest.path, "0.0.0.0", 49983)
    with await slots.connect(slot, 49983):
        connection, source = await accept(listener)
        connection.close()
        assert source == GATEWAY_ADDRESS


async def test_program_in_the_slot_reaches_nothing(world: World, pool: SlotPool) -> None:
    """A VMM that its guest took over is in the slot, past the rules for the guest."""
    slot = await pool.acquire(INTERNET)
    world.listen(world.internet, PUBLIC, 80)
    world.listen(world.host, slot.host_address, 80)
    loop = asyncio.get_running_loop()
    for address in (PUBLIC, slot.host_address, pool.network.dns_address):
        with (
            await slots.tcp_socket(slot) as escaped,
            pytest.raises((PermissionError, TimeoutError)),
        ):
            async with asyncio.timeout(1):
                await loop.sock_connect(escaped, (address, 80))


async def test_outside_reaches_no_slot(world: World, pool: SlotPool) -> None:
    """A neighbour of the host that routes the range to it gets no answer."""
    slot = await pool.acquire(INTERNET)
    guest = world.guest(slot)
    listener = world.listen(guest.path, "0.0.0.0", 80)
    await run_ip(world.internet, "route", "add", "10.77.0.0/24", "via", HOST_PUBLIC)
    forwarder = (pool.network.dns_address, pool.network.dns_port)
    for target in ((slot.address, 80), forwarder):
        with tcp_client(world.internet) as outsider, pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.get_running_loop().sock_connect(outsider, target)
    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_spoofed_frames_are_dropped(world: World, pool: SlotPool) -> None:
    receiver = world.listen(world.internet, PUBLIC, 9000, socket.SOCK_DGRAM)
    guest = world.guest(await pool.acquire(INTERNET))
    spoofed = [
        udp_frame(b"source address", source_address="169.254.0.20"),
        udp_frame(b"host's address", source_address="10.77.0.2"),
        udp_frame(b"public source", source_address="8.8.8.8"),
        udp_frame(b"hardware address", source="02:FC:00:00:00:07"),
        udp_frame(b"gateway's hardware address", source=GATEWAY_MAC),
        udp_frame(b"wrong destination", to="ff:ff:ff:ff:ff:ff"),
        vlan_frame(b"vlan"),
    ]
    for frame in spoofed:
        guest.send_frame(frame)
    guest.send_frame(udp_frame(b"genuine"))
    # Frames of one tap keep their order: what came before the genuine one would be here first.
    assert await asyncio.get_running_loop().sock_recv(receiver, 64) == b"genuine"


async def test_forged_arp_and_ipv6_leave_no_trace(world: World, pool: SlotPool) -> None:
    slot = await pool.acquire(INTERNET)
    receiver = world.listen(world.internet, PUBLIC, 9000, socket.SOCK_DGRAM)
    guest = world.guest(slot)
    guest.send_frame(frames.arp_reply("10.77.0.2"))
    guest.send_frame(frames.ethernet(0x86DD, b"\x60" + b"\0" * 60))
    guest.send_frame(udp_frame(b"after"))
    assert await asyncio.get_running_loop().sock_recv(receiver, 64) == b"after"
    neighbours = await run_ip(slot.netns_path, "neigh")
    assert "10.77.0.2 dev tap0" not in neighbours
    assert "inet6" not in await run_ip(slot.netns_path, "address")


async def test_operators_open_ranges(world: World, tmp_path: Path, resolv_conf: Path) -> None:
    network = make_network(egress_allow=(IPv4Network("192.168.50.0/24"), IPv4Network("10.0.0.0/8")))
    pool = SlotPool(network, tmp_path / "state", size=1, host=world.host, resolv_conf=resolv_conf)
    await pool.start()
    try:
        world.listen(world.internet, "192.168.50.1", 80)
        first, second = [world.guest(await pool.acquire(CLOSED)) for _ in range(2)]
        world.listen(second.path, GUEST_ADDRESS, 80)
        (await first.connect("192.168.50.1", 80)).close()
        with pytest.raises(ConnectionRefusedError):
            await first.connect(second.slot.address, 80)
        with pytest.raises(ConnectionRefusedError):
            await first.connect("172.16.0.1", 80)
    finally:
        await pool.close(keep=set())


async def test_addresses_are_allowed_and_denied(world: World, pool: SlotPool) -> None:
    for address in (PUBLIC, OTHER):
        world.listen(world.internet, address, 80)
    slot = await pool.acquire(EgressPolicy(deny=(IPv4Network("198.51.100.0/24"),)))
    guest = world.guest(slot)
    with pytest.raises(ConnectionRefusedError):
        await guest.connect(PUBLIC, 80)
    (await guest.connect(OTHER, 80)).close()
    await pool.set_policy(slot, EgressPolicy(allow=(IPv4Network(PUBLIC),), deny=(EVERYTHING,)))
    (await guest.connect(PUBLIC, 80)).close()
    with pytest.raises(ConnectionRefusedError):
        await guest.connect(OTHER, 80)


def udp_frame(payload: bytes, **frame: str) -> bytes:
    """A datagram to the internet, port 9000, as a frame."""
    source = frame.pop("source_address", GUEST_ADDRESS)
    packet = frames.ipv4(socket.IPPROTO_UDP, frames.udp(payload, 9000), PUBLIC, source=source)
    return frames.ethernet(0x0800, packet, **frame)


def vlan_frame(payload: bytes) -> bytes:
    frame = udp_frame(payload)
    return frame[:12] + b"\x81\x00\x00\x01" + frame[12:]


async def run_ip(where: Path, *arguments: str) -> str:
    return await run_tool(where, "", "ip", *arguments)


async def run_nft(where: Path, rules: str) -> None:
    await run_tool(where, rules, "nft", "-f", "-")


async def run_tool(where: Path, given: str, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", where.name, *command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate(given.encode())
    assert process.returncode == 0
    return output.decode()
