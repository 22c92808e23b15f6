"""The limit on failed tries, by a clock of its own."""

from __future__ import annotations

import pytest

from emberbox.orchestrator.data_proxy.failures import Allowance, FailureLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limit(clock: Clock, *, overall: float = 1000, most_peers: int = 10) -> FailureLimit:
    return FailureLimit(
        clock,
        per_peer=Allowance(burst=3, per_second=0.5),
        overall=Allowance(burst=overall, per_second=1),
        most_peers=most_peers,
    )


def test_a_burst_then_a_rate(clock: Clock) -> None:
    failures = limit(clock)
    assert [failures.failed("a") for _ in range(5)] == [0, 0, 0, 2, 2]
    assert failures.failed("b") == 0
    clock.now += 1
    assert failures.failed("a") == 1
    clock.now += 1
    assert [failures.failed("a") for _ in range(2)] == [0, 2]
    clock.now += 3600
    assert [failures.failed("a") for _ in range(4)] == [0, 0, 0, 2]


def test_all_together_are_limited_too(clock: Clock) -> None:
    failures = limit(clock, overall=4)
    assert [failures.failed(f"peer{n}") for n in range(6)] == [0, 0, 0, 0, 1, 1]


def test_a_peer_over_its_limit_takes_nothing_from_others(clock: Clock) -> None:
    failures = limit(clock, overall=5)
    for _ in range(50):
        failures.failed("a")
    assert [failures.failed("b") for _ in range(2)] == [0, 0]


def test_memory_is_bounded_and_the_last_are_remembered(clock: Clock) -> None:
    failures = limit(clock, most_peers=10)
    for number in range(100):
        failures.failed(f"10.0.0.{number}")
        for _ in range(4):
            failures.failed("10.9.9.9")
        assert len(failures) <= 10
    assert failures.failed("10.9.9.9") > 0


def test_an_ipv6_network_is_one_peer(clock: Clock) -> None:
    failures = limit(clock)
    waits = [failures.failed(f"2001:db8::{n}") for n in range(1, 5)]
    assert waits == [0, 0, 0, 2]
    assert failures.failed("2001:db8:0:1::1") == 0


def test_ipv4_addresses_are_peers_of_their_own_in_either_form(clock: Clock) -> None:
    failures = limit(clock)
    assert [failures.failed("::ffff:10.0.0.1") for _ in range(3)] == [0, 0, 0]
    assert failures.failed("10.0.0.1") == 2
    assert failures.failed("::ffff:10.0.0.2") == 0
    assert failures.failed("") == 0
