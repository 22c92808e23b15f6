"""Replacing a policy while its guest has connections and goes on making them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network import netns
from emberbox.orchestrator.network.addresses import GATEWAY_ADDRESS
from emberbox.orchestrator.network.errors import KernelRefusedError
from emberbox.orchestrator.network.policy import CLOSED, EVERYTHING, OPEN, EgressPolicy
from scripts.fake_internet import HOST_PUBLIC, OTHER, PUBLIC
from tests.integration.network.test_dns import QUERY, Resolver, answer, ask_by_tcp, ask_by_udp
from tests.integration.network.test_isolation import accept

if TYPE_CHECKING:
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from tests.integration.network.world import Guest, World

ONLY_PUBLIC = EgressPolicy(allow=(IPv4Network(PUBLIC),), deny=(EVERYTHING,))
NOT_OTHER = EgressPolicy(deny=(IPv4Network(OTHER),))


async def test_a_guest_that_sends_gets_a_reset(world: World, pool: SlotPool) -> None:
    slot, client, server = await connected(world, pool)
    with client, server:
        await pool.set_policy(slot, CLOSED)
        client.send(b"late")
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(client, 16)
        with pytest.raises(BlockingIOError):
            server.recv(16)


async def test_a_guest_that_only_waits_gets_a_reset(world: World, pool: SlotPool) -> None:
    slot, client, server = await connected(world, pool)
    with client, server:
        waiting = asyncio.create_task(asyncio.get_running_loop().sock_recv(client, 16))
        await asyncio.sleep(0)
        await pool.set_policy(slot, CLOSED)
        await pool.end_forbidden(slot, CLOSED)
        with pytest.raises(ConnectionResetError):
            await waiting


async def test_the_far_end_gets_a_reset_when_it_sends(world: World, pool: SlotPool) -> None:
    slot, client, server = await connected(world, pool)
    with client, server:
        await pool.set_policy(slot, CLOSED)
        await pool.end_forbidden(slot, CLOSED)
        server.send(b"late")
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(server, 16)
        with pytest.raises(ConnectionResetError):
            client.recv(16)


async def test_what_is_still_allowed_goes_on(world: World, pool: SlotPool) -> None:
    slot, client, server = await connected(world, pool)
    loop = asyncio.get_running_loop()
    with client, server:
        for policy in (ONLY_PUBLIC, NOT_OTHER, OPEN, ONLY_PUBLIC):
            await pool.set_policy(slot, policy)
            await pool.end_forbidden(slot, policy)
            await loop.sock_sendall(client, b"to")
            assert await loop.sock_recv(server, 16) == b"to"
            await loop.sock_sendall(server, b"fro")
            assert await loop.sock_recv(client, 16) == b"fro"


async def test_connections_of_the_host_go_on(world: World, pool: SlotPool) -> None:
    """The data proxy's: its replies pass whatever the guest may reach."""
    slot = await pool.acquire(OPEN)
    guest = world.guest(slot)
    listener = world.listen(guest.path, "0.0.0.0", 49983)
    loop = asyncio.get_running_loop()
    with netns.run_in(world.host, socket.socket) as client:
        client.setblocking(False)
        await loop.sock_connect(client, (slot.address, 49983))
        connection, _ = await accept(listener)
        with connection:
            await pool.set_policy(slot, CLOSED)
            await pool.end_forbidden(slot, CLOSED)
            await loop.sock_sendall(connection, b"stream")
            assert await loop.sock_recv(client, 16) == b"stream"


async def test_no_window_opens_while_policies_change(world: World, pool: SlotPool) -> None:
    """What every policy denies is never reached, what every policy allows always is."""
    loop = asyncio.get_running_loop()
    listeners = [world.listen(world.internet, address, 80) for address in (PUBLIC, OTHER)]
    for listener in listeners:  # else their queues would be full soon
        loop.add_reader(listener, accept_and_close, listener)
    slot = await pool.acquire(ONLY_PUBLIC)
    guest = world.guest(slot)
    tried: Counter[tuple[str, bool]] = Counter()

    async def try_on() -> None:
        while True:
            for address in (OTHER, PUBLIC):
                tried[address, await reaches(guest, address)] += 1

    trying = [asyncio.create_task(try_on()) for _ in range(4)]
    wide = tuple(IPv4Network((9 << 24 | n << 8, 24)) for n in range(0, 400, 2))
    others = EgressPolicy(allow=wide, deny=(IPv4Network(OTHER),))
    while tried.total() < 400:
        for policy in (NOT_OTHER, ONLY_PUBLIC, others):
            await pool.set_policy(slot, policy)
    await cancel(*trying)
    for listener in listeners:
        loop.remove_reader(listener)
    assert set(tried) == {(OTHER, False), (PUBLIC, True)}


async def test_no_window_opens_when_rules_are_renewed(world: World, pool: SlotPool) -> None:
    """As when a restarted orchestrator takes the slot back."""
    world.listen(world.internet, OTHER, 80)
    slot = await pool.acquire(ONLY_PUBLIC)
    guest = world.guest(slot)
    tried: Counter[bool] = Counter()

    async def try_on() -> None:
        while True:
            tried[await reaches(guest, OTHER)] += 1

    trying = asyncio.create_task(try_on())
    while tried.total() < 10:
        await pool.adopt(slot.index, ONLY_PUBLIC)
    await cancel(trying)
    assert set(tried) == {False}


async def test_a_renewed_slot_has_the_policy_it_is_given(world: World, pool: SlotPool) -> None:
    slot, client, server = await connected(world, pool)
    guest = world.guests[0]
    with client, server:
        await pool.adopt(slot.index, OPEN)
        await asyncio.get_running_loop().sock_sendall(client, b"goes on")
        assert await asyncio.get_running_loop().sock_recv(server, 16) == b"goes on"
        await pool.adopt(slot.index, NOT_OTHER)
        world.listen(world.internet, OTHER, 80)
        assert not await reaches(guest, OTHER)
        assert await reaches(guest, PUBLIC)


async def test_a_large_policy_is_one_step(world: World, pool: SlotPool) -> None:
    world.listen(world.internet, PUBLIC, 80)
    slot = await pool.acquire(OPEN)
    guest = world.guest(slot)
    many = tuple(IPv4Network((11 << 24 | n << 9, 24)) for n in range(1000))
    await pool.set_policy(slot, EgressPolicy(allow=(*many, IPv4Network(PUBLIC)), deny=many))
    assert await reaches(guest, PUBLIC)
    await pool.set_policy(slot, EgressPolicy(deny=(*many, IPv4Network(PUBLIC))))
    assert not await reaches(guest, PUBLIC)


async def test_a_policy_that_the_kernel_refuses_changes_nothing(
    world: World, pool: SlotPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here since its networks overlap, as they never do otherwise."""
    world.listen(world.internet, PUBLIC, 80)
    slot = await pool.acquire(ONLY_PUBLIC)
    guest = world.guest(slot)
    overlapping = IPv4Network("198.51.100.0/24"), IPv4Network("198.51.100.128/25")
    monkeypatch.setattr(EgressPolicy, "denied", overlapping)
    with pytest.raises(KernelRefusedError):
        await pool.set_policy(slot, CLOSED)
    monkeypatch.undo()
    assert await reaches(guest, PUBLIC)


# DNS servers


async def test_named_servers_answer_in_turn(world: World, pool: SlotPool) -> None:
    named = [Resolver(world, address, world.internet) for address in (PUBLIC, OTHER)]
    servers = (IPv4Address(PUBLIC), IPv4Address(OTHER))
    guest = world.guest(await pool.acquire(EgressPolicy(dns_servers=servers)))
    for _ in range(4):
        assert await ask_by_udp(guest) == answer(QUERY)
        assert await ask_by_tcp(guest) == answer(QUERY)
    assert all(server.asked for server in named)
    for server in named:
        await server.close()


async def test_servers_are_replaced_for_sockets_that_are_open(world: World, pool: SlotPool) -> None:
    first, second = (Resolver(world, address, world.internet) for address in (PUBLIC, OTHER))
    slot = await pool.acquire(EgressPolicy(dns_servers=(IPv4Address(PUBLIC),)))
    guest = world.guest(slot)
    loop = asyncio.get_running_loop()
    with guest.udp() as client:
        client.connect((GATEWAY_ADDRESS, 53))
        for server, other in ((first, second), (second, first)):
            other.asked = 0
            policy = EgressPolicy(dns_servers=(IPv4Address(server.address),))
            await pool.set_policy(slot, policy)
            await pool.end_forbidden(slot, policy)
            await loop.sock_sendall(client, QUERY)
            async with asyncio.timeout(10):
                assert await loop.sock_recv(client, 4096) == answer(QUERY)
            assert (server.asked, other.asked) == (1, 0)
    await first.close()
    await second.close()


OUT_OF_REACH = (
    EgressPolicy(dns_servers=()),
    CLOSED,
    # Named servers are reached as far as the guest may reach them itself.
    EgressPolicy(deny=(EVERYTHING,), dns_servers=(IPv4Address(PUBLIC),)),
    EgressPolicy(deny=(IPv4Network(PUBLIC),), dns_servers=(IPv4Address(PUBLIC),)),
    *(
        EgressPolicy(dns_servers=(IPv4Address(address),))
        for address in ("10.200.0.1", "169.254.169.254", HOST_PUBLIC, "127.0.0.53", GATEWAY_ADDRESS)
    ),
)


async def test_servers_that_a_guest_may_not_reach(world: World, dns_pool: SlotPool) -> None:
    on_internet = (PUBLIC, "10.200.0.1", "169.254.169.254")
    named = [Resolver(world, address, world.internet) for address in on_internet]
    of_host = [Resolver(world), Resolver(world, HOST_PUBLIC)]
    slot = await dns_pool.acquire(CLOSED)
    guest = world.guest(slot)
    for policy in OUT_OF_REACH:
        await dns_pool.set_policy(slot, policy)
        with pytest.raises(OSError, match=r"refused|route|unreachable"):
            await ask_by_udp(guest)
        with pytest.raises(ConnectionRefusedError):
            await ask_by_tcp(guest)
    assert [server.asked for server in (*named, *of_host)] == [0] * 5
    for server in (*named, *of_host):
        await server.close()


async def test_an_allowed_server_answers_one_who_may_reach_nothing_else(
    world: World, pool: SlotPool
) -> None:
    named = Resolver(world, PUBLIC, world.internet)
    policy = EgressPolicy(
        allow=(IPv4Network(PUBLIC),), deny=(EVERYTHING,), dns_servers=(IPv4Address(PUBLIC),)
    )
    guest = world.guest(await pool.acquire(policy))
    assert await ask_by_udp(guest) == answer(QUERY)
    await named.close()


async def connected(world: World, pool: SlotPool) -> tuple[Slot, socket.socket, socket.socket]:
    """A slot, and both ends of a connection of its guest to the internet."""
    listener = world.listen(world.internet, PUBLIC, 80)
    slot = await pool.acquire(OPEN)
    guest = world.guest(slot)
    client = await guest.connect(PUBLIC, 80)
    server, _ = await accept(listener)
    return slot, client, server


def accept_and_close(listener: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        listener.accept()[0].close()


async def cancel(*tasks: asyncio.Task[None]) -> None:
    """Raises what one of them failed with."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, asyncio.CancelledError):
            assert result is None, result


async def reaches(guest: Guest, address: str) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        (await guest.connect(address, 80)).close()
        return True
    return False
