"""Which node is chosen, and why the others are not; no I/O."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest

from emberbox.api_server.full_hosts import full_of_promises, full_of_sandboxes
from emberbox.api_server.placement import Candidate, PlacementRequest, choose
from emberbox.api_server.store import NodeRecord, NodeUsage
from emberbox.api_server.store.rows import NodeTemplate

if TYPE_CHECKING:
    from emberbox.api_server.node import Node

NOW = datetime(2026, 8, 21, tzinfo=UTC)
RECORD = NodeRecord(
    node_id="a",
    address="a:8080",
    data_address="a:5007",
    labels={"zone": "x"},
    version="1",
    driver="qemu",
    accelerator="tcg",
    cpu_model="cpu",
    cpu_count=8,
    cpu_used=0,
    memory_total_mb=16_384,
    memory_available_mb=16_000,
    disk_available_mb=100_000,
    max_sandboxes=10,
    max_ram_mb=65_536,
    shared_directory="",
    ready=True,
    status="",
    registered_at=NOW,
    seen_at=NOW,
)
NO_NODE = cast("Node", None)


def candidate(node_id: str = "a", *, usage: NodeUsage | None = None, **values: object) -> Candidate:
    record = replace(RECORD, node_id=node_id, **values)  # type: ignore[arg-type]
    return Candidate(NO_NODE, record, usage or NodeUsage())


def request(**values: object) -> PlacementRequest:
    return PlacementRequest("base", 2, 512, 1024, **values)  # type: ignore[arg-type]


def refusals(asked: PlacementRequest, *candidates: Candidate) -> tuple[dict[str, str], str | None]:
    """The reasons, and the code of the error."""
    full: dict[str, str] = {}
    assert choose(candidates, asked, full, random.Random(1)) is None
    error = asked.no_capacity(full)
    return dict(error.refusals), error.error_code


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"draining": True}, "it is draining"),
        ({"ready": False, "status": "building"}, "building"),
        ({"ready": False}, "not ready: its images are being made"),
        (
            {"usage": NodeUsage(10, 20, 512)},
            full_of_sandboxes(10, 10),
        ),
        (
            {"usage": NodeUsage(3, 20, 65_536)},
            full_of_promises(65_536, 65_536),
        ),
    ],
)
def test_a_node_that_takes_nothing_now(values: dict[str, object], reason: str) -> None:
    told, code = refusals(request(), candidate(**values))  # type: ignore[arg-type]
    assert (told, code) == ({"a": reason}, "sandbox_capacity_unavailable")


def test_a_silent_node() -> None:
    silent = candidate()
    silent.silent = "nothing was heard of it for 31 s"
    assert refusals(request(), silent)[0] == {"a": "nothing was heard of it for 31 s"}


def test_nodes_that_would_never_do() -> None:
    template = NodeTemplate("b", 2, 512, 1024, "0.6.13")
    other = candidate("b", labels={"zone": "y"})
    other.templates = {"other": template}
    asked = request(labels={"zone": "y"}, built_in=True)
    told, code = refusals(asked, candidate(), other)
    assert told == {"a": "it has not the labels zone=y", "b": "it does not have template base"}
    assert code == "sandbox_no_compatible_node"


def test_the_only_node_that_has_a_snapshot_is_full() -> None:
    told, code = refusals(request(only_on="a"), candidate(draining=True), candidate("b"))
    assert told == {"a": "it is draining", "b": "the snapshot is on a"}
    assert code == "sandbox_capacity_unavailable"


def test_what_has_refused_is_not_asked_again() -> None:
    asked = request()
    asked.refuse("a", "its disk is full")
    assert refusals(asked, candidate()) == (
        {"a": "its disk is full"},
        "sandbox_capacity_unavailable",
    )


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"usage": NodeUsage(1, 30, 512)}, "vCPUs"),
        ({"usage": NodeUsage(1, 1, 60_000)}, "memory"),
        ({"cpu_used": 8.0}, "busy processors"),
    ],
)
def test_the_least_used_of_those_drawn_wins(values: dict[str, object], why: str) -> None:
    used, free = candidate("used", **values), candidate("free")  # type: ignore[arg-type]
    for seed in range(20):
        assert choose([used, free], request(), {}, random.Random(seed)) is free, why


def test_a_burst_spreads_by_what_was_placed_since() -> None:
    nodes = [candidate(str(n), max_sandboxes=7) for n in range(5)]
    draw, placed = random.Random(7), Counter[str]()
    for _ in range(35):
        chosen = choose(nodes, request(), {}, draw)
        assert chosen is not None
        chosen.add(request())
        placed[chosen.record.node_id] += 1
    assert set(placed.values()) == {7}
    assert choose(nodes, request(), {}, draw) is None
