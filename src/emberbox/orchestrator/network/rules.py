"""The text of the nftables rules: what a guest may send, and what may reach it.

Two places decide. In the slot's namespace, where the guest cannot look: frames that are not the
guest's own are dropped on arrival, then the egress policy is applied to every packet of both
directions, so that a change of policy also ends connections that are open. On the host: slots
reach neither the host nor one another, whatever the first place let through.
"""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from emberbox.orchestrator.network.addresses import (
    GATEWAY_ADDRESS,
    GATEWAY_MAC,
    GUEST_ADDRESS,
    GUEST_MAC,
    TAP,
    UPLINK,
    NodeNetwork,
    Slot,
)
from emberbox.orchestrator.network.policy import CLOSED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from emberbox.orchestrator.network.policy import EgressPolicy
    from emberbox.orchestrator.network.sets import Endpoint

_LINE = "\n    "

CLOSED_RANGES = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
"""Never reachable unless an operator opens a part: private, carrier, link-local (metadata
services), benchmarking, multicast and reserved ranges (RFC 6890), broadcast among them."""

MAX_CONNECTIONS = 8192
"""Of one guest at a time. The host's table of connections is shared by all."""

ALLOW_SET = "allow_out"
DENY_SET = "deny_out"
FORWARDED_SET = "gateway_of_forwarder"
DNS_MAP = "dns_servers"
"""The sets of a slot whose contents are the policy, and the map from the gateway's DNS."""

_DNS_WAYS = 10
"""How many entries that map has when there is any. Queries take them in turn, so it is a multiple
of as few servers as it gets; the protocol allows 10."""
_DNS_PORT = 53


def policy_sets(policy: EgressPolicy) -> dict[str, tuple[IPv4Network, ...]]:
    """The contents of the policy's sets."""
    forwarded = (IPv4Network(GATEWAY_ADDRESS),) if policy.uses_resolvers_of_host else ()
    return {ALLOW_SET: policy.allowed, DENY_SET: policy.denied, FORWARDED_SET: forwarded}


def dns_servers(network: NodeNetwork, policy: EgressPolicy) -> tuple[Endpoint, ...]:
    """Where queries to the gateway go. Named servers in closed ranges are left out, so that a
    query is refused and not lost on its way: the kernel routes some of them nowhere."""
    if policy.uses_resolvers_of_host:
        return ((IPv4Address(network.dns_address), network.dns_port),)
    named = policy.dns_servers or ()
    return tuple((server, _DNS_PORT) for server in named if _is_open(network, server))


def _is_open(network: NodeNetwork, address: IPv4Address) -> bool:
    opened = any(address in ours for ours in network.egress_allow)
    return opened or not any(address in IPv4Network(closed) for closed in CLOSED_RANGES)


def policy_maps(network: NodeNetwork, policy: EgressPolicy) -> dict[str, tuple[Endpoint, ...]]:
    """The contents of the policy's map: where the next query to the gateway goes."""
    ways = itertools.cycle(dns_servers(network, policy))
    return {DNS_MAP: tuple(itertools.islice(ways, _DNS_WAYS))}


def slot_rules(network: NodeNetwork, slot: Slot, policy: EgressPolicy = CLOSED) -> str:
    """The rules in a slot's namespace, replacing those there in the same transaction."""
    sets = [_set(name, content) for name, content in policy_sets(policy).items()]
    maps = [_endpoints(name, content) for name, content in policy_maps(network, policy).items()]
    return (
        _frame_rules(network)
        + f"""
add table inet {network.table}
delete table inet {network.table}
table inet {network.table} {{
    {_set("operator_ranges", network.egress_allow)}
    {_set("closed_ranges", CLOSED_RANGES)}
    {_LINE.join([*sets, *maps])}
    chain to_guest_address {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "{UPLINK}" ip saddr {slot.host_address} ip daddr {slot.address} \
dnat ip to {GUEST_ADDRESS}
        iifname "{TAP}" ip daddr {GATEWAY_ADDRESS} meta l4proto {{ tcp, udp }} th dport \
{_DNS_PORT} dnat ip to numgen inc mod {_DNS_WAYS} map @{DNS_MAP}
    }}
    chain to_slot_address {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{UPLINK}" snat ip to {slot.address}
    }}
{_forward_rules(network, slot)}
    chain to_gateway {{
        type filter hook input priority filter; policy drop;
        iifname "{TAP}" ct direction reply ct state established accept
        iifname "{TAP}" goto refuse
    }}
    chain from_gateway {{
        type filter hook output priority filter; policy drop;
        ct state invalid tcp flags & rst == 0 drop
        oifname "{TAP}" accept
        oifname "{UPLINK}" ct state related ct direction original accept
    }}
    chain refuse {{
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }}
}}
"""
    )


def _frame_rules(network: NodeNetwork) -> str:
    """Only frames with the guest's own addresses come in from the tap; nothing of IPv6."""
    return f"""
add table netdev {network.table}
delete table netdev {network.table}
table netdev {network.table} {{
    chain from_tap {{
        type filter hook ingress device "{TAP}" priority -500; policy drop;
        ether saddr != {GUEST_MAC} drop
        ether type arp arp saddr ether {GUEST_MAC} arp saddr ip {GUEST_ADDRESS} \
arp daddr ip {GATEWAY_ADDRESS} accept
        ether daddr {GATEWAY_MAC} ether type ip ip saddr {GUEST_ADDRESS} accept
    }}
}}
"""


def _forward_rules(network: NodeNetwork, slot: Slot) -> str:
    """The egress policy, and what passes to the guest: the host's connections and answers.

    Who goes on sending to a guest that may not have it any more is refused as the guest is.
    """
    return f"""
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        meta nfproto != ipv4 drop
        iifname "{TAP}" oifname "{UPLINK}" goto from_guest
        iifname "{UPLINK}" oifname "{TAP}" goto to_guest
    }}
    chain from_guest {{
        ct direction reply accept
        ct original ip daddr @{FORWARDED_SET} ip daddr {network.dns_address} accept
        ip daddr {network.address_range} goto refuse
        ct state new ct count over {MAX_CONNECTIONS} goto refuse
        ip daddr @operator_ranges accept
        ip daddr @closed_ranges goto refuse
        ip daddr @{ALLOW_SET} accept
        ip daddr @{DENY_SET} goto refuse
        accept
    }}
    chain to_guest {{
        ct direction original ip saddr {slot.host_address} accept
        ct direction original drop
        ct state related meta l4proto icmp accept
        ct original ip daddr @{FORWARDED_SET} ip saddr {network.dns_address} accept
        ip saddr {network.address_range} drop
        ip saddr @operator_ranges accept
        ip saddr @closed_ranges drop
        ip saddr @{ALLOW_SET} accept
        ip saddr @{DENY_SET} goto refuse
        accept
    }}
"""


def node_rules(network: NodeNetwork) -> str:
    """The rules on the host, replacing those of an earlier start in the same transaction."""
    slots = f'"{network.link_prefix}*"'
    return f"""
add table inet {network.table}
delete table inet {network.table}
table inet {network.table} {{
    {_set("operator_ranges", network.egress_allow)}
    {_set("closed_ranges", CLOSED_RANGES)}
    chain arrival {{
        type filter hook prerouting priority raw; policy accept;
        iifname {slots} goto from_slot
        iifname != "lo" ip daddr {network.address_range} drop
    }}
    chain from_slot {{
        meta nfproto != ipv4 drop
        fib saddr . iif oif missing drop
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname != {slots} accept
        ct direction reply ct state established,related accept
        ip daddr {network.dns_address} meta l4proto {{ tcp, udp }} \
th dport {network.dns_port} accept
        goto refuse
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname {slots} goto from_slot_outwards
        oifname {slots} goto to_slot
    }}
    chain from_slot_outwards {{
        oifname {slots} goto refuse
        ct status dnat goto refuse
        ip daddr @operator_ranges goto pass_outwards
        ip daddr @closed_ranges goto refuse
        goto pass_outwards
    }}
    chain pass_outwards {{
        tcp flags syn tcp option maxseg size set rt mtu
        accept
    }}
    chain to_slot {{
        ct direction reply ct state established,related accept
        drop
    }}
    chain leave {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {network.address_range} oifname != "lo" oifname != {slots} masquerade
    }}
    chain refuse {{
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }}
}}
"""


def _set(name: str, networks: Iterable[str | IPv4Network]) -> str:
    """A set of IPv4 intervals; `auto-merge`, as operators' ranges may overlap."""
    content = _elements(map(str, networks))
    return f"set {name} {{ type ipv4_addr; flags interval; auto-merge;{content} }}"


def _endpoints(name: str, endpoints: Iterable[Endpoint]) -> str:
    """A map from a number that a rule makes to an address and port."""
    elements = (f"{n} : {address} . {port}" for n, (address, port) in enumerate(endpoints))
    content = _elements(elements)
    return f"map {name} {{ typeof numgen inc mod {_DNS_WAYS} : ip daddr . th dport;{content} }}"


def _elements(elements: Iterable[str]) -> str:
    joined = ", ".join(elements)
    return f" elements = {{ {joined} }};" if joined else ""
