"""What one node sets up on its host, once, for all its slots."""

from __future__ import annotations

import json
import os
import socket
import struct
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.network import firewalls, netns, nft, rules
from emberbox.orchestrator.network.errors import RangeTakenError
from emberbox.orchestrator.network.links import Links
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from emberbox.orchestrator.network.addresses import NodeNetwork

_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_TUN = Path("/dev/net/tun")
_ROUTES = Path("/proc/thread-self/net/route")


def prepare(network: NodeNetwork, state_directory: Path) -> None:
    """Rules, forwarding and the forwarder's address; the same again at every start. For threads.

    Runs in the host's namespace. Forwarding stays on when we go: others (Docker, another node)
    may have come to need it. What it was before is kept in `forwarding.json`.
    Raises RangeTakenError, RulesRefusedError, KernelRefusedError.
    """
    _check_range(network)
    nft.load(rules.node_rules(network))
    firewalls.open_iptables(network)
    with Links() as links:
        links.add_host_address(links.index("lo"), network.dns_address, network.dns_label)
    _forward(state_directory / "forwarding.json")


def remove(network: NodeNetwork) -> None:
    """Take away what `prepare` made, except forwarding. For threads, in the host's namespace."""
    firewalls.close_iptables(network)
    nft.delete_table("inet", network.table)
    with Links() as links:
        links.delete_host_address(links.index("lo"), network.dns_address)


def indices(network: NodeNetwork) -> set[int]:
    """Every slot of this node of which anything is left, whole or not. In the host's namespace."""
    by_name = {network.index_of_netns(name) for name in netns.names()}
    return {index for index in by_name if index is not None} | indices_of_links(network)


def indices_of_links(network: NodeNetwork) -> set[int]:
    """The slots of this node that have their link in the host's namespace."""
    by_link = {network.index_of_link(name) for _, name in socket.if_nameindex()}
    return {index for index in by_link if index is not None}


def diagnose(network: NodeNetwork, resolv_conf: Path) -> list[str]:
    """What is in the way of sandboxes' network on this host, a sentence each with its remedy.

    For threads, in the host's namespace. Changes nothing.
    """
    if nft.find_tool("nft") is None:
        return ["the program nft is missing; install the package nftables"]
    found = []
    if not _TUN.exists():
        found.append(f"{_TUN} is missing; load the kernel module tun")
    if not os.access(_IP_FORWARD, os.W_OK) and _IP_FORWARD.read_text().strip() == "0":
        found.append("forwarding is off and cannot be set; run: sysctl -w net.ipv4.ip_forward=1")
    if not resolv_conf.exists():
        found.append(f"{resolv_conf} is missing, so sandboxes have no DNS; name a resolver in it")
    found += [
        f"the route {route} overlaps the network range {network.address_range}; "
        "set EMBERBOX_NETWORK_RANGE to a free range"
        for route in _overlapping_routes(network)
    ]
    return found + firewalls.obstacles(network)


def _forward(record: Path) -> None:
    before = _IP_FORWARD.read_text().strip()
    if not record.exists():
        write_atomically(record, json.dumps({"ip_forward": before}).encode())
    if before != "1":
        _IP_FORWARD.write_text("1")


def _check_range(network: NodeNetwork) -> None:
    with Links() as links:
        addresses = links.addresses()
    for address, link in addresses:
        ours = address == network.dns_address or link.startswith(network.link_prefix)
        if IPv4Address(address) in network.address_range and not ours:
            raise RangeTakenError(str(network.address_range), address, link)


def _overlapping_routes(network: NodeNetwork) -> list[IPv4Network]:
    found = []
    for line in _ROUTES.read_text().splitlines()[1:]:
        link, destination, _, _, _, _, _, mask, *_ = line.split()
        # The kernel prints addresses as numbers of the machine's byte order.
        base, bits = (struct.pack("=I", int(text, 16)) for text in (destination, mask))
        route = IPv4Network((base, int.from_bytes(bits, "big").bit_count()))
        default = route.prefixlen == 0
        ours = link.startswith(network.link_prefix)
        if route.overlaps(network.address_range) and not default and not ours:
            found.append(route)
    return found
