"""Making and destroying one slot, and what is done inside it while it is used."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.network import netns, nft, rules, tap
from emberbox.orchestrator.network.addresses import (
    GATEWAY_ADDRESS,
    GATEWAY_MAC,
    GUEST_ADDRESS,
    GUEST_MAC,
    GUEST_PREFIX,
    TAP,
    UPLINK,
    NodeNetwork,
    Slot,
)
from emberbox.orchestrator.network.links import Links
from emberbox.orchestrator.network.sets import replace_sets

if TYPE_CHECKING:
    from emberbox.orchestrator.network.policy import EgressPolicy

_PAIR_PREFIX = 31
_IPV6_SWITCHES = ("all", "default")


def make(network: NodeNetwork, slot: Slot, host: Path) -> None:
    """Make a slot whose policy is closed. Blocks some milliseconds: for threads.

    `host` is the host's namespace. The name in /run/netns comes first and goes last: it is by
    that name that what a crash left is found. Raises NetworkError; then nothing is left.
    """
    try:
        netns.run_in(host, lambda: _build(network, slot))
    except BaseException:
        destroy(slot, host)
        raise


def destroy(slot: Slot, host: Path) -> None:
    """Remove a slot, whole or not; nothing happens when it is absent. For threads.

    Its connections, neighbours and rules go with the namespace, so the next slot of that index
    inherits nothing. Raises KernelRefusedError.
    """
    netns.run_in(host, lambda: _delete_link(slot.link))
    netns.delete(slot.netns)


async def set_policy(network: NodeNetwork, slot: Slot, policy: EgressPolicy) -> None:
    """Replace what the guest may reach, in one step; open connections are held to it too.

    Raises KernelRefusedError; then the policy before stays.
    """
    contents = policy.sets()
    used = await netns.call_in(slot.netns_path, lambda: replace_sets(network.table, contents))
    # Not awaited: the new policy is in force, and closing only waits for the kernel's cleaning.
    asyncio.get_running_loop().run_in_executor(None, used.close)


async def tcp_socket(slot: Slot) -> socket.socket:
    """A non-blocking TCP socket inside the slot: its peer sees the gateway's address.

    Raises KernelRefusedError when the slot is gone.
    """
    made = await netns.call_in(slot.netns_path, lambda: _new_socket(socket.SOCK_STREAM))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


async def connect(slot: Slot, port: int) -> socket.socket:
    """A connection to a port of the guest, from its gateway, as a non-blocking socket.

    Waits without an end of its own while nothing answers. Raises OSError as connect(2) does,
    KernelRefusedError when the slot is gone.
    """
    made = await tcp_socket(slot)
    try:
        await asyncio.get_running_loop().sock_connect(made, (GUEST_ADDRESS, port))
    except BaseException:
        made.close()
        raise
    return made


async def datagram_socket(slot: Slot, port: int) -> socket.socket:
    """A non-blocking UDP socket from a port of the gateway to the same port of the guest.

    What is sent before the guest runs waits for it. Raises OSError, KernelRefusedError when the
    slot is gone.
    """
    made = await netns.call_in(slot.netns_path, lambda: _new_socket(socket.SOCK_DGRAM))
    try:
        made.bind((GATEWAY_ADDRESS, port))
        made.connect((GUEST_ADDRESS, port))
    except BaseException:
        made.close()
        raise
    return made


def _new_socket(kind: socket.SocketKind) -> socket.socket:
    return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)


def _build(network: NodeNetwork, slot: Slot) -> None:
    with Links() as host_links:
        netns.enter_new(slot.netns)
        tap.add()
        _set_kernel_switches()
        # Before any link is up: there is no moment without rules.
        nft.load(rules.slot_rules(network, slot))
        with Links() as slot_links:
            _connect_to_host(slot, host_links, slot_links)
            _bring_up_tap(slot_links)


def _connect_to_host(slot: Slot, host_links: Links, slot_links: Links) -> None:
    inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        host_links.add_veth(slot.link, UPLINK, inside)
    finally:
        os.close(inside)
    outer = host_links.index(slot.link)
    host_links.add_address(outer, slot.host_address, _PAIR_PREFIX)
    host_links.up(outer)
    inner = slot_links.index(UPLINK)
    slot_links.add_address(inner, slot.address, _PAIR_PREFIX)
    slot_links.up(inner)
    slot_links.add_default_route(inner, slot.host_address)


def _bring_up_tap(links: Links) -> None:
    index = links.index(TAP)
    links.up(index, GATEWAY_MAC)
    links.add_address(index, GATEWAY_ADDRESS, GUEST_PREFIX)
    # Fixed: the guest cannot give its address another owner, and no packet waits for ARP.
    links.add_neighbour(index, GUEST_ADDRESS, GUEST_MAC)


def _set_kernel_switches() -> None:
    # /proc/sys/net shows the namespace of the thread that opens it.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for scope in _IPV6_SWITCHES:
        switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")


def _delete_link(name: str) -> None:
    with Links() as links:
        links.delete(name)
