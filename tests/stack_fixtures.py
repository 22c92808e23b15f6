"""The fixtures of every suite that needs a whole Emberbox: one stack for all of them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from emberbox import Sandbox
from tests.stack import EMBERBOX, Ports, Stack, prepare_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import FreePorts

BUILD_SECONDS = 1500


@pytest.fixture(scope="session")
def images() -> None:
    """The guest images of this machine, built when they are missing."""
    subprocess.run([EMBERBOX, "images", "build"], check=True, timeout=BUILD_SECONDS)


@pytest.fixture(scope="session")
def stack(
    _session_leaves_nothing: None,  # which must look after the stack has ended
    images: None,
    free_ports: FreePorts,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """`emberbox up`, ready. At the end it stops and leaves no sandbox."""
    home = tmp_path_factory.mktemp("home")
    stack = new_stack(free_ports, home, EMBERBOX_FAILPOINTS=str(home / "failpoint"))
    stack.start()
    yield stack
    assert stack.stop() == 0
    assert list(stack.home.run_directories.iterdir()) == []


def new_stack(free_ports: FreePorts, home: Path, **extra: str) -> Stack:
    """A stack that is not started yet."""
    ports = free_ports(api=1, api_internal=1, proxy=2, orchestrator=1, data=1)
    return Stack(prepare_home(home), Ports(*ports), extra)


@pytest.fixture
def create(stack: Stack) -> Iterator[Callable[..., Sandbox]]:
    """Makes sandboxes that are gone after the test."""
    made: list[Sandbox] = []

    def make(**options: Any) -> Sandbox:
        sandbox = Sandbox.create(**{"timeout": 120, **stack.sdk, **options})
        made.append(sandbox)
        return sandbox

    yield make
    for sandbox in made:
        sandbox.kill()
