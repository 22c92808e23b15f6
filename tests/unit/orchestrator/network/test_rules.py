"""The rules' text. What they do is tried in tests/integration/network."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.network.rules import node_rules, slot_rules

NODE = NodeNetwork("abc", IPv4Network("10.9.8.0/24"), (IPv4Network("10.1.0.0/16"),))


def test_everything_lies_in_tables_of_the_node() -> None:
    for text in (slot_rules(NODE, NODE.slot(1)), node_rules(NODE)):
        tables = re.findall(r"^(?:add |delete )?table \w+ (\S+)", text, re.MULTILINE)
        assert set(tables) == {"emberbox_abc"}


def test_rules_replace_themselves_in_one_transaction() -> None:
    for text, tables in ((node_rules(NODE), 1), (slot_rules(NODE, NODE.slot(1)), 2)):
        verbs = re.findall(r"^(add table|delete table|table)", text, re.MULTILINE)
        assert verbs == ["add table", "delete table", "table"] * tables


def test_new_slot_is_closed() -> None:
    text = slot_rules(NODE, NODE.slot(1))
    assert re.search(r"set deny_out \{[^}]*elements = \{ 0\.0\.0\.0/0 \}", text)
    assert re.search(r"set gateway_of_forwarder \{ [^{}=]* \}", text)
    assert re.search(r"map dns_servers \{ [^{}=]* \}", text)


def test_operators_ranges_come_before_the_closed_ones_and_after_our_own() -> None:
    text = slot_rules(NODE, NODE.slot(1))
    own = text.index("ip daddr 10.9.8.0/24 goto refuse")
    assert own < text.index("ip daddr @operator_ranges accept") < text.index("@closed_ranges goto")
    assert "elements = { 10.1.0.0/16 }" in text
