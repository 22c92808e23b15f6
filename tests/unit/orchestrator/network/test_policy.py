from __future__ import annotations

from ipaddress import IPv4Network

from emberbox.orchestrator.network.policy import (
    ALLOW_SET,
    CLOSED,
    DENY_SET,
    DNS_SET,
    EVERYTHING,
    EgressPolicy,
)


def test_internet_denies_nothing_and_has_dns() -> None:
    sets = EgressPolicy(internet=True).sets()
    assert sets[DENY_SET] == ()
    assert sets[DNS_SET] != ()


def test_no_internet_is_everything_denied_and_no_dns() -> None:
    sets = CLOSED.sets()
    assert sets[DENY_SET] == (EVERYTHING,)
    assert sets[DNS_SET] == ()
    denied = EgressPolicy(internet=True, deny=(EVERYTHING,))
    assert denied.sets() == sets


def test_sets_have_no_overlaps() -> None:
    wide, narrow = IPv4Network("9.0.0.0/8"), IPv4Network("9.1.0.0/16")
    sets = EgressPolicy(internet=False, allow=(narrow, wide), deny=(narrow,)).sets()
    assert sets[ALLOW_SET] == (wide,)
    assert sets[DENY_SET] == (EVERYTHING,)
