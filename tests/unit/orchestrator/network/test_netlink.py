"""Bytes on netlink sockets. That the kernel takes them is tried in tests/integration/network."""

from __future__ import annotations

from ipaddress import IPv4Network

from emberbox.orchestrator.network.netlink import attribute, nested, read_attributes
from emberbox.orchestrator.network.sets import intervals


def test_attributes_are_padded_and_read_back() -> None:
    data = attribute(1, b"abc") + nested(2, attribute(3, b"12345")) + attribute(4, b"")
    assert len(data) % 4 == 0
    found = read_attributes(data)
    assert found[1] == b"abc"
    assert read_attributes(found[2]) == {3: b"12345"}
    assert found[4] == b""


def test_truncated_attributes_end_the_reading() -> None:
    assert read_attributes(b"\x00\x00\x01\x00") == {1: b""}
    assert read_attributes(b"\x08") == {}


def test_interval_has_an_end_unless_it_reaches_the_last_address() -> None:
    assert len(intervals([IPv4Network("10.0.0.0/8")])) == 2
    assert len(intervals([IPv4Network("240.0.0.0/4")])) == 1
    assert len(intervals([IPv4Network("0.0.0.0/0")])) == 1
