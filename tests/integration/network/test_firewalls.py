"""Beside the rules of others: Docker's and ufw's FORWARD=drop, and rulesets of one's own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network import firewalls, netns, nft
from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.network.pool import SlotPool
from scripts.fake_internet import PUBLIC
from tests.integration.network.test_dns import QUERY, Resolver, answer, ask_by_tcp, ask_by_udp
from tests.integration.network.world import World, make_network

if TYPE_CHECKING:
    from pathlib import Path

IPTABLES = nft.find_tool("iptables")

AS_DOCKER_AND_UFW = (
    "-P FORWARD DROP",
    "-P INPUT DROP",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A INPUT -i lo -j ACCEPT",
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)


@pytest.mark.skipif(IPTABLES is None, reason="needs the package iptables")
async def test_forward_drop_of_iptables_is_passed(
    world: World, tmp_path: Path, resolv_conf: Path
) -> None:
    for rule in AS_DOCKER_AND_UFW:
        iptables(world, rule)
    before = iptables(world, "-S")
    pool = SlotPool(
        make_network(), tmp_path / "state", size=1, host=world.host, resolv_conf=resolv_conf
    )
    await pool.start()
    resolver = Resolver(world)
    try:
        assert await pool.diagnose() == []
        told = netns.run_in(world.host, lambda: firewalls.passed(pool.network))
        assert sorted(line.split()[1:4] for line in told) == [
            ["ip", "filter", "FORWARD"],
            ["ip", "filter", "INPUT"],
        ]
        world.listen(world.internet, PUBLIC, 80)
        guest = world.guest(await pool.acquire(OPEN))
        (await guest.connect(PUBLIC, 80)).close()
        assert await ask_by_udp(guest) == answer(QUERY)
        assert await ask_by_tcp(guest) == answer(QUERY)
    finally:
        await resolver.close()
        await pool.close(keep=set())
    assert iptables(world, "-S") == before


@pytest.mark.skipif(IPTABLES is None, reason="needs the package iptables")
async def test_iptables_without_rules_is_left_alone(world: World, pool: SlotPool) -> None:
    assert pool.network.table not in iptables(world, "-S")


async def test_iptables_rules_without_the_tool_are_diagnosed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    netns.run_in(
        world.host,
        lambda: nft.load(
            "table ip filter { chain FORWARD {\n"
            "type filter hook forward priority filter; policy drop;\n}\n}\n"
        ),
    )
    monkeypatch.setattr(nft, "find_tool", lambda name: name if name == "nft" else None)
    (finding,) = netns.run_in(world.host, lambda: firewalls.obstacles(make_network()))
    assert "install the package iptables" in finding


async def test_rulesets_of_their_own_are_diagnosed_with_a_remedy(
    world: World, dns_pool: SlotPool
) -> None:
    world.listen(world.internet, PUBLIC, 80)
    resolver = Resolver(world)
    guest = world.guest(await dns_pool.acquire(OPEN))
    netns.run_in(world.host, lambda: nft.load(OWN_RULESET))
    findings = await dns_pool.diagnose()
    assert [name for name in ("forward", "input") for f in findings if f"theirs {name}" in f] == [
        "forward",
        "input",
    ]
    remedies = "".join(finding.split("add a rule: nft ")[1] + "\n" for finding in findings)
    netns.run_in(world.host, lambda: nft.load(remedies))
    (await guest.connect(PUBLIC, 80)).close()
    assert await ask_by_udp(guest) == answer(QUERY)
    await resolver.close()


async def test_firewalld_is_diagnosed(world: World, pool: SlotPool) -> None:
    netns.run_in(
        world.host,
        lambda: nft.load(
            "table inet firewalld { chain filter_FORWARD {\n"
            "type filter hook forward priority filter + 10; policy accept;\n}\n}\n"
        ),
    )
    (finding,) = await pool.diagnose()
    assert "--zone=trusted" in finding


async def test_overlapping_route_is_diagnosed(world: World, pool: SlotPool) -> None:
    assert await pool.diagnose() == []
    add_route(world)
    (finding,) = await pool.diagnose()
    assert "10.77.0.128/25" in finding


OWN_RULESET = """
table inet theirs {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
    }
}
"""


def add_route(world: World) -> None:
    netns.run_in(
        world.host,
        lambda: subprocess.run(
            ["ip", "route", "add", "10.77.0.128/25", "via", "203.0.113.1"], check=True
        ),
    )


def iptables(world: World, rule: str) -> str:
    assert IPTABLES is not None
    command = [IPTABLES, *rule.split()]
    done = netns.run_in(
        world.host, lambda: subprocess.run(command, check=True, capture_output=True, text=True)
    )
    return done.stdout
