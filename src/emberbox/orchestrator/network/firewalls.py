"""Rules of others on the host that would drop our packets, and what we can do about them.

A packet passes every table: our accept does not help when Docker's or ufw's chain drops. Their
chains belong to iptables, so ours are put in front of them with iptables, if it is there. Other
nftables rulesets are their operators' own; for those `obstacles` says what to add.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.network import nft

if TYPE_CHECKING:
    from emberbox.orchestrator.network.addresses import NodeNetwork

_IPTABLES_TABLE = "filter"
_FIREWALLD_TABLE = "firewalld"
_ACCEPTING = ("-P FORWARD ACCEPT", "-P INPUT ACCEPT")


@dataclass(frozen=True, slots=True)
class _Rule:
    chain: str
    matches: tuple[str, ...]


def accept_rules(network: NodeNetwork) -> list[_Rule]:
    """What must pass chains of iptables: slots outwards, answers back, DNS to the forwarder."""
    slots = f"{network.link_prefix}+"
    mark = ("-m", "comment", "--comment", network.table)
    answers = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
    rules = [
        _Rule("FORWARD", ("-i", slots, *mark)),
        _Rule("FORWARD", ("-o", slots, *answers, *mark)),
        _Rule("INPUT", ("-i", slots, *answers, *mark)),
    ]
    for protocol in ("udp", "tcp"):
        service = ("-p", protocol, "-d", network.dns_address, "--dport", str(network.dns_port))
        rules.append(_Rule("INPUT", ("-i", slots, *service, *mark)))
    return rules


def open_iptables(network: NodeNetwork) -> None:
    """Put our accepts in front of iptables' rules, where there are any. For threads."""
    if not _in_use():
        return
    for rule in accept_rules(network):
        if not _iptables("-C", rule):
            _iptables("-I", rule)


def close_iptables(network: NodeNetwork) -> None:
    """Take our accepts away again. For threads."""
    if not _in_use():
        return
    for rule in accept_rules(network):
        while _iptables("-D", rule):
            pass


def passed(network: NodeNetwork) -> list[str]:
    """What drops our packets and is passed while the node runs, a sentence each. For threads."""
    return [
        f"chain {_name(chain)} drops what it does not know (as Docker and ufw set it): accept rules"
        " for sandboxes are put in front of it"
        for chain in _dropping(network)
        if _passable(chain) and chain["family"] == "ip"
    ]


def obstacles(network: NodeNetwork) -> list[str]:
    """What drops our packets and we cannot pass, a sentence each with its remedy. For threads."""
    found = [_advice(network, c) for c in _dropping(network) if not _passable(c)]
    if any(chain["table"] == _FIREWALLD_TABLE for chain in _chains()):
        # Its chains accept by policy and end in a reject. Whether the range is trusted already
        # is written in its own configuration, which may be loaded or not.
        found.append(
            "firewalld filters this host; unless that is done, run: firewall-cmd --permanent "
            f"--zone=trusted --add-source={network.address_range} && firewall-cmd --reload"
        )
    return found


def _chains() -> list[nft.BaseChain]:
    return [c for c in nft.base_chains() if c["hook"] in {"forward", "input"}]


def _dropping(network: NodeNetwork) -> list[nft.BaseChain]:
    return [c for c in _chains() if c.get("policy") == "drop" and c["table"] != network.table]


def _passable(chain: nft.BaseChain) -> bool:
    """Whether `open_iptables` gets us past that chain."""
    of_ipv6 = chain["family"] == "ip6"  # nothing of ours is IPv6
    return of_ipv6 or (chain["table"] == _IPTABLES_TABLE and nft.find_tool("iptables") is not None)


def _advice(network: NodeNetwork, chain: nft.BaseChain) -> str:
    name = _name(chain)
    if chain["table"] == _IPTABLES_TABLE and chain["family"] == "ip":
        return f"chain {name} drops the sandboxes' packets; install the package iptables"
    match = f'iifname "{network.link_prefix}*"'
    if chain["hook"] == "input":
        match += f" ip daddr {network.dns_address} meta l4proto {{ tcp, udp }}"
        match += f" th dport {network.dns_port}"
    remedy = f"nft insert rule {name} {match} accept"
    return f"chain {name} drops the sandboxes' packets; add a rule: {remedy}"


def _name(chain: nft.BaseChain) -> str:
    return f"{chain['family']} {chain['table']} {chain['name']}"


def _in_use() -> bool:
    """Whether iptables has any rule that could stop us. Without one we leave no trace in it."""
    tool = nft.find_tool("iptables")
    if tool is None:
        return False
    for chain in ("FORWARD", "INPUT"):
        done = _run(tool, "-S", chain)
        lines = done.stdout.splitlines()
        if done.returncode == 0 and any(line not in _ACCEPTING for line in lines):
            return True
    return False


def _iptables(action: str, rule: _Rule) -> bool:
    tool = nft.find_tool("iptables")
    if tool is None:
        return False
    return _run(tool, action, rule.chain, *rule.matches, "-j", "ACCEPT").returncode == 0


def _run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -w: wait for the lock that all users of iptables share.
    return subprocess.run(
        [tool, "-w", "5", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
