from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from emberbox.orchestrator.network.addresses import NodeNetwork

NODE = NodeNetwork.of_node("node-1")


def test_names_follow_from_the_node_and_fit_a_link() -> None:
    assert NodeNetwork.of_node("node-1") == NODE
    assert NodeNetwork.of_node("node-2").tag != NODE.tag
    assert len(NODE.slot(NODE.capacity).link) <= 15
    assert len(NODE.dns_label) <= 15


def test_default_range_holds_thousands_of_slots_with_addresses_of_their_own() -> None:
    slots = [NODE.slot(index) for index in range(1, NODE.capacity + 1)]
    addresses = {slot.address for slot in slots} | {slot.host_address for slot in slots}
    assert NODE.capacity == 32766
    assert len(addresses | {NODE.dns_address}) == 2 * NODE.capacity + 1


def test_pair_of_a_slot_is_one_network_of_two() -> None:
    slot = NodeNetwork("a", IPv4Network("10.9.8.0/24")).slot(3)
    assert (slot.host_address, slot.address) == ("10.9.8.6", "10.9.8.7")


@pytest.mark.parametrize("index", [0, -1, 127])
def test_index_outside_the_range_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="1 and 126"):
        NodeNetwork("a", IPv4Network("10.9.8.0/24")).slot(index)


@pytest.mark.parametrize("tag", ["", "toolong", "a-b", "ä"])
def test_bad_tag_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        NodeNetwork(tag)


def test_range_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="/28 at least"):
        NodeNetwork("a", IPv4Network("10.9.8.0/29"))


def test_only_own_names_are_found_again() -> None:
    slot = NODE.slot(17)
    assert NODE.index_of_netns(slot.netns) == 17
    assert NODE.index_of_link(slot.link) == 17
    other = NodeNetwork.of_node("node-2").slot(17)
    assert NODE.index_of_netns(other.netns) is None
    assert NODE.index_of_link(other.link) is None
    for stranger in (f"{NODE.link_prefix}x", NODE.link_prefix, f"{NODE.link_prefix}99999", "lo"):
        assert NODE.index_of_link(stranger) is None
