from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.network.policy import (
    CLOSED,
    EVERYTHING,
    OPEN,
    EgressPolicy,
    recorded_policy,
)
from emberbox.orchestrator.network.rules import policy_maps

NODE = NodeNetwork("abc", IPv4Network("10.9.8.0/24"), (IPv4Network("10.1.0.0/16"),))
SERVERS = (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3"))
CLOSED_AND_OPENED = (IPv4Address("127.0.0.53"), IPv4Address("10.2.0.1"), IPv4Address("10.1.0.1"))


def test_sets_have_no_overlaps() -> None:
    wide, narrow = IPv4Network("9.0.0.0/8"), IPv4Network("9.1.0.0/16")
    policy = EgressPolicy(allow=(narrow, wide), deny=(narrow, EVERYTHING))
    assert policy.allowed == (wide,)
    assert policy.denied == (EVERYTHING,)


def test_everything_denied_in_parts_is_everything_denied() -> None:
    halves = (IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1"))
    assert EgressPolicy(deny=halves).denied == CLOSED.denied


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        (OPEN, {("10.9.8.254", 10053)}),
        (EgressPolicy(deny=(IPv4Network("9.0.0.0/8"),)), {("10.9.8.254", 10053)}),
        (CLOSED, set()),
        (EgressPolicy(dns_servers=()), set()),
        (EgressPolicy(dns_servers=SERVERS), {(str(server), 53) for server in SERVERS}),
        (EgressPolicy(dns_servers=CLOSED_AND_OPENED), {("10.1.0.1", 53)}),
        (EgressPolicy(dns_servers=CLOSED_AND_OPENED[:2]), set()),
        # The rules decide whether the guest may reach it.
        (EgressPolicy(deny=(EVERYTHING,), dns_servers=SERVERS[:1]), {("192.0.2.1", 53)}),
    ],
)
def test_where_queries_to_the_gateway_go(policy: EgressPolicy, where: set[tuple[str, int]]) -> None:
    (ways,) = policy_maps(NODE, policy).values()
    assert {(str(address), port) for address, port in ways} == where
    assert len(ways) == (10 if where else 0)


def test_what_a_policy_leaves_open() -> None:
    policy = EgressPolicy(
        allow=(IPv4Network("9.9.0.0/16"), IPv4Network("192.0.2.7")),
        deny=(IPv4Network("9.0.0.0/8"), IPv4Network("192.0.2.0/24")),
    )
    permits = policy.judge()
    opened = ("9.9.0.0", "9.9.255.255", "10.0.0.0", "8.255.255.255", "192.0.2.7", "0.0.0.0")
    closed = ("9.8.255.255", "9.10.0.0", "192.0.2.6", "192.0.2.255")
    assert all(permits(IPv4Address(address)) for address in opened)
    assert not any(permits(IPv4Address(address)) for address in closed)
    assert not CLOSED.judge()(IPv4Address("255.255.255.255"))


@pytest.mark.parametrize(
    "policy",
    [
        OPEN,
        CLOSED,
        EgressPolicy((EVERYTHING,), (EVERYTHING,), SERVERS),
        EgressPolicy(dns_servers=()),
    ],
)
def test_a_record_keeps_it(policy: EgressPolicy) -> None:
    assert recorded_policy({"egress": policy.to_json()}) == policy


@pytest.mark.parametrize(("internet", "policy"), [(True, OPEN), (False, CLOSED)])
def test_a_record_of_before_said_whether_there_was_internet(
    internet: bool, policy: EgressPolicy
) -> None:
    record: dict[str, Any] = {"internet": internet, "slot": 1}
    assert recorded_policy(record) == policy
    assert record == {"slot": 1}
