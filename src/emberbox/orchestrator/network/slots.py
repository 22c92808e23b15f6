"""Making and destroying one slot, and what is done inside it while it is used."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.network import bandwidth, netns, nft, resets, rules, tap
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
from emberbox.orchestrator.network.conntrack import Conntrack
from emberbox.orchestrator.network.links import Links
from emberbox.orchestrator.network.sets import intervals, replace_contents, ways

if TYPE_CHECKING:
    from emberbox.orchestrator.network.netlink import NetlinkSocket
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


def renew(network: NodeNetwork, slot: Slot, policy: EgressPolicy) -> None:
    """Bring the rules of a slot that is in use up to those of a new one, with that policy.

    For threads. Nothing passes that neither the old nor the new rules let pass. Raises
    NetworkError; then the rules are as before.
    """
    netns.run_in(slot.netns_path, lambda: _renew(network, slot, policy))


def reset(network: NodeNetwork, slot: Slot) -> bool:
    """Make a slot whose VMM has ended as one that was never used. For threads.

    False when that cannot be: the kernel holds fragments of a packet, which it might put together
    with fragments of the next guest. Raises KernelRefusedError, OSError.
    """
    return netns.run_in(slot.netns_path, lambda: _reset(network, slot))


async def set_policy(network: NodeNetwork, slot: Slot, policy: EgressPolicy) -> None:
    """Replace what the guest may reach, in one step; open connections are held to it too.

    Raises KernelRefusedError; then the policy before stays.
    """
    _close_later(await netns.call_in(slot.netns_path, lambda: _replace(network, policy)))


async def end_forbidden(network: NodeNetwork, slot: Slot, policy: EgressPolicy) -> None:
    """Have the guest find out which of its open connections the policy in force has closed.

    Raises KernelRefusedError, OSError.
    """
    servers = rules.dns_servers(network, policy)
    _close_later(
        await netns.call_in(slot.netns_path, lambda: resets.end_forbidden(policy, servers))
    )


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
        _set_kernel_switches()
        with Links() as slot_links:
            _add_tap(network, slot, slot_links)
            _connect_to_host(slot, host_links, slot_links)
            _limit(network, slot_links)


def _renew(network: NodeNetwork, slot: Slot, policy: EgressPolicy) -> None:
    nft.load(rules.slot_rules(network, slot, policy))
    with Links() as links:
        _limit(network, links)


def _reset(network: NodeNetwork, slot: Slot) -> bool:
    if _holds_fragments():
        return False
    with Links() as links:
        # A VMM that its guest took over could do more to its tap than send frames.
        links.delete(TAP)
        _add_tap(network, slot, links)
        _limit(network, links)
    with Conntrack() as table:
        table.forget_all()
    return True


def _limit(network: NodeNetwork, links: Links) -> None:
    """What a link sends is what the guest receives (tap), or has sent (uplink)."""
    for name in (TAP, UPLINK):
        bandwidth.limit(links, links.index(name), network.bandwidth)


def _close_later(used: NetlinkSocket) -> None:
    """What was to be done is done, and closing only waits for the kernel's cleaning."""
    asyncio.get_running_loop().run_in_executor(None, used.close)


def _replace(network: NodeNetwork, policy: EgressPolicy) -> NetlinkSocket:
    sets, maps = rules.policy_sets(policy), rules.policy_maps(network, policy)
    contents = {name: intervals(networks) for name, networks in sets.items()}
    contents |= {name: ways(endpoints) for name, endpoints in maps.items()}
    return replace_contents(network.table, contents)


def _holds_fragments() -> bool:
    """Whether packets are there in part (the line `FRAG: inuse N memory N`)."""
    lines = Path("/proc/thread-self/net/sockstat").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("FRAG:"))
    return line.split()[2] != "0"


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


def _add_tap(network: NodeNetwork, slot: Slot, links: Links) -> None:
    tap.add()
    # Before a link is up: there is no moment without rules. Those for frames hang on the tap.
    nft.load(rules.slot_rules(network, slot))
    index = links.index(TAP)
    links.up(index, GATEWAY_MAC)
    links.add_address(index, GATEWAY_ADDRESS, GUEST_PREFIX)
    # Fixed: the guest cannot give its address another owner, and no packet waits for ARP.
    links.add_neighbour(index, GUEST_ADDRESS, GUEST_MAC)


def _set_kernel_switches() -> None:
    # /proc/sys/net shows the namespace of the thread that opens it.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # A guest is told of each datagram that is refused, not of a few a second.
    Path("/proc/sys/net/ipv4/icmp_ratelimit").write_text("0")
    # What the gateway's own connections learn of a guest must not be used for the next one.
    Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
    # Nor must it get what is sent again of connections to the last one: no packet that opens none
    # counts as the first of another.
    Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").write_text("0")
    for scope in _IPV6_SWITCHES:
        switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")


def _delete_link(name: str) -> None:
    with Links() as links:
        links.delete(name)
