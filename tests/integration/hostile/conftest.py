"""One machine for all tests of this directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import leaks
from tests.integration.hostile.machine import Machine, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import FreePorts
    from tests.stack import Stack


@pytest.fixture(scope="session")
def hostile_machine(
    stack: Stack, free_ports: FreePorts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    with machine(stack.home.templates, free_ports, tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture
def host(hostile_machine: Machine) -> Iterator[Machine]:
    """The machine; what a test has made on it is gone afterwards."""
    hostile_machine.witness.reached.clear()
    yield hostile_machine
    hostile_machine.end_boxes()


@pytest.fixture(autouse=True)
def _integration_test_leaves_nothing(hostile_machine: Machine) -> Iterator[None]:
    yield
    home = hostile_machine.stack.home
    left = leaks.wait_until_none(lambda: [p.name for p in home.run_directories.iterdir()])
    assert not left, f"sandboxes left by the test: {left}"
