"""Names are resolved through the gateway, whatever address the host's resolver has."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network import netns
from emberbox.orchestrator.network.addresses import GATEWAY_ADDRESS
from emberbox.orchestrator.network.dns import probe
from emberbox.orchestrator.network.dns.messages import HEADER_SIZE
from emberbox.orchestrator.network.policy import CLOSED, OPEN
from emberbox.orchestrator.network.pool import SlotPool
from emberbox.orchestrator.processes import wait_gone
from scripts.fake_internet import PUBLIC
from tests.integration.network.world import Guest, World, make_network

if TYPE_CHECKING:
    from pathlib import Path

INTERNET = OPEN
QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x00\x00\x01\x00\x01"
RESOLVER = "127.0.0.53"


class Resolver:
    """Answers every query with one address, over UDP and TCP."""

    def __init__(self, world: World, address: str = RESOLVER, where: Path | None = None) -> None:
        """On the host unless another namespace is given."""
        where = where or world.host
        self.address = address
        self.asked = 0
        self._udp = world.listen(where, address, 53, socket.SOCK_DGRAM)
        self._tcp = world.listen(where, address, 53)
        self._tasks = [
            asyncio.create_task(self._serve_udp()),
            asyncio.create_task(self._serve_tcp()),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve_udp(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            query, client = await loop.sock_recvfrom(self._udp, 4096)
            self.asked += 1
            await loop.sock_sendto(self._udp, answer(query), client)

    async def _serve_tcp(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._tcp)
            self.asked += 1
            with connection:
                query = (await loop.sock_recv(connection, 4096))[2:]
                reply = answer(query)
                await loop.sock_sendall(connection, struct.pack("!H", len(reply)) + reply)


def answer(query: bytes) -> bytes:
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(PUBLIC)
    head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
    return head + query[HEADER_SIZE:] + record


async def ask_by_udp(guest: Guest) -> bytes:
    loop = asyncio.get_running_loop()
    with guest.udp() as client:
        client.connect((GATEWAY_ADDRESS, 53))
        await loop.sock_sendall(client, QUERY)
        async with asyncio.timeout(10):
            return await loop.sock_recv(client, 4096)


async def ask_by_tcp(guest: Guest) -> bytes:
    loop = asyncio.get_running_loop()
    with await guest.connect(GATEWAY_ADDRESS, 53) as client:
        await loop.sock_sendall(client, struct.pack("!H", len(QUERY)) + QUERY)
        async with asyncio.timeout(10):
            return (await loop.sock_recv(client, 4096))[2:]


async def test_names_by_udp_and_tcp(world: World, dns_pool: SlotPool) -> None:
    resolver = Resolver(world)
    guest = world.guest(await dns_pool.acquire(INTERNET))
    assert await ask_by_udp(guest) == answer(QUERY)
    assert await ask_by_tcp(guest) == answer(QUERY)
    await resolver.close()


async def test_resolvers_that_do_not_answer_are_found(world: World) -> None:
    resolver = Resolver(world)
    named = [RESOLVER, "127.0.0.99"]
    silent = await netns.call_in(world.host, lambda: asyncio.run(probe.silent(named, 2)))
    assert silent == ["127.0.0.99"]
    await resolver.close()


async def test_no_internet_no_names(world: World, dns_pool: SlotPool) -> None:
    resolver = Resolver(world)
    slot = await dns_pool.acquire(CLOSED)
    guest = world.guest(slot)
    with pytest.raises(OSError, match=r"refused|route|unreachable"):
        await ask_by_udp(guest)
    with pytest.raises(ConnectionRefusedError):
        await ask_by_tcp(guest)
    await dns_pool.set_policy(slot, INTERNET)
    assert await ask_by_udp(guest) == answer(QUERY)
    await resolver.close()


async def test_dead_resolver_is_skipped_and_none_is_a_failure(
    world: World, dns_pool: SlotPool, resolv_conf: Path
) -> None:
    resolver = Resolver(world, "127.0.0.54")
    guest = world.guest(await dns_pool.acquire(INTERNET))
    name_resolvers(resolv_conf, "127.0.0.99", "127.0.0.54")
    assert await ask_by_udp(guest) == answer(QUERY)
    name_resolvers(resolv_conf, "127.0.0.99")
    reply = await ask_by_udp(guest)
    assert reply[3] & 0x0F == 2
    assert reply[HEADER_SIZE:] == QUERY[HEADER_SIZE:]
    await resolver.close()


async def test_forwarder_outlives_the_pool_and_is_found_again(
    world: World, dns_pool: SlotPool, tmp_path: Path, resolv_conf: Path
) -> None:
    resolver = Resolver(world)
    slot = await dns_pool.acquire(INTERNET)
    before = dns_pool.dns.identity
    await dns_pool.close(keep={slot.index})
    guest = world.guest(slot)
    assert await ask_by_udp(guest) == answer(QUERY)

    again = SlotPool(
        make_network(), tmp_path / "state", size=1, host=world.host, resolv_conf=resolv_conf
    )
    await again.start()
    try:
        assert again.dns.identity == before
        assert (await again.adopt(slot.index, INTERNET)) == slot
        assert await ask_by_udp(guest) == answer(QUERY)
    finally:
        await again.close(keep=set())
    await resolver.close()


async def test_forwarder_that_dies_is_replaced(world: World, dns_pool: SlotPool) -> None:
    resolver = Resolver(world)
    guest = world.guest(await dns_pool.acquire(INTERNET))
    dead = dns_pool.dns.identity
    assert dead is not None
    os.kill(dead.pid, signal.SIGKILL)
    await wait_gone(dead)
    async with asyncio.timeout(20):
        while dns_pool.dns.identity in {None, dead}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while True:
            try:
                assert await ask_by_tcp(guest) == answer(QUERY)
                break
            except ConnectionError:
                await asyncio.sleep(0.05)
    await resolver.close()


async def test_forwarder_is_not_root(dns_pool: SlotPool) -> None:
    assert dns_pool.dns.identity is not None
    status = await asyncio.to_thread(read_status, dns_pool.dns.identity.pid)
    assert status["Uid"].split() == ["65534"] * 4
    assert int(status["CapEff"], 16) == 0


def name_resolvers(path: Path, *addresses: str) -> None:
    path.write_text("".join(f"nameserver {address}\n" for address in addresses))


def read_status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
        return dict(line.rstrip().split(":", 1) for line in file)
