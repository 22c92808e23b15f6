"""What every test may use, and the checks that no test leaves anything behind."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from scripts.free_ports import find_free_ports
from tests import leaks
from tests.service_fixtures import _redis, postgres, redis_server
from tests.stack_fixtures import create, images, stack

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "_redis",
    "create",
    "images",
    "postgres",
    "redis_server",
    "stack",
]  # fixtures for every suite below

RUN_MARK = "EMBERBOX_TEST_RUN"
"""In the environment of every process that the tests start, and so of what those start."""


_TESTS = Path(__file__).parent

_LONG_SUITES = tuple(_TESTS / name for name in ("compatibility", "faults"))
"""Of which `make test` runs what is marked as their smoke."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is no smoke of a long suite is for the command of that suite."""
    for item in items:
        long = any(item.path.is_relative_to(suite) for suite in _LONG_SUITES)
        if long and item.get_closest_marker("smoke") is None:
            item.add_marker(pytest.mark.exhaustive)


class FreePorts(Protocol):
    """Finds TCP ports of 127.0.0.1 that nobody listens on."""

    def __call__(self, **lengths: int) -> list[int]:
        """The first port of a run of free ones for each name, in order."""


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def free_ports() -> FreePorts:
    """For programs that take several ports, some of them beside one another."""
    return find_free_ports


@pytest.fixture(scope="session", autouse=True)
def _session_leaves_nothing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    mark = uuid.uuid4().hex
    os.environ[RUN_MARK] = mark
    place = tmp_path_factory.getbasetemp()
    before = leaks.Machine.now(place)
    # Unit tests make no VM and no network, so what appears meanwhile is not theirs.
    integration = any(
        _is_integration(item.path) or item.path.is_relative_to(_TESTS / "faults")
        for item in request.session.items
    )
    yield

    def look() -> list[str]:
        names = () if integration else ("helpers",)
        grown = leaks.Machine.now(place).beyond(before, *names)
        on_machine = [line for line in grown if not _is_of_others(line, place, integration)]
        return [*leaks.processes(RUN_MARK, mark), *on_machine]

    left = leaks.wait_until_none(look)
    assert not left, f"left by the tests: {left}"


def _is_of_others(line: str, place: Path, integration: bool) -> bool:
    """Whether it belongs to tests that run beside these, as those without machines do."""
    return str(place) not in line and (not integration or "/pytest-of-" in line)


def _is_integration(path: Path) -> bool:
    return path.is_relative_to(_TESTS / "integration")


@pytest.fixture(autouse=True)
def _integration_test_leaves_nothing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """What a single test must take away again.

    Slots are left out: an orchestrator that serves several tests refills its pool meanwhile.
    """
    if not _is_integration(request.path):
        yield
        return
    place = tmp_path_factory.getbasetemp()
    before, files = leaks.Machine.now(place), leaks.descriptors()
    yield
    left = leaks.wait_until_none(
        lambda: [
            *leaks.Machine.now(place).beyond(before, "vms", "loops", "mounts"),
            *sorted(leaks.descriptors() - files),
        ]
    )
    assert not left, f"left by {request.node.nodeid}: {left}"
