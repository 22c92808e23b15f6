"""A world for each test, jailed and not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.firecracker.world import StandIn, World, slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.network.addresses import Slot

SLOTS = 3


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandIn]:
    with StandIn.installed() as installed:
        yield installed


@pytest.fixture(scope="session")
def free_slots() -> Iterator[list[Slot]]:
    if os.geteuid() != 0:
        pytest.skip("namespaces, uids and the jail need root")
    with slots(SLOTS) as made:
        yield made


@pytest.fixture(params=["jailed", "bare"])
def world(
    request: pytest.FixtureRequest,
    stand_in: StandIn,
    free_slots: list[Slot],
) -> Iterator[World]:
    """The stand-in with its jailer and without; nothing is left of either."""
    stand_in.go_wrong()
    with tempfile.TemporaryDirectory(prefix="fc-") as name:
        # A copy, so that a test that fails keeps no slot from the next.
        made = World(stand_in, list(free_slots), Path(name), jailed=request.param == "jailed")
        yield made
        assert made.left() == []
        assert len(made.free) == SLOTS
