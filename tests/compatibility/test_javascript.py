"""The released npm package `e2b`, unmodified, against `emberbox up`: the tests in js/."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.compatibility.npm import JAVASCRIPT, NODE, environment_of

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.mark import ParameterSet

    from tests.stack import Stack

SECONDS = 600
"""For one file, on a machine that computes slowly and is busy."""

pytestmark = [pytest.mark.vm, pytest.mark.timeout(SECONDS + 200)]

FILES = {path.name.removesuffix(".test.js"): path for path in JAVASCRIPT.glob("*.test.js")}
_SMOKE = {"generation-2.45", "pty"}


@pytest.fixture(scope="module")
def key_of_small_team(stack: Stack) -> str:
    """For what happens at the limit of a team."""
    options = stack.sdk_of_new_team("--concurrent-sandboxes", "1")
    return str(options["api_key"])


def _as_parameter(name: str) -> ParameterSet:
    return pytest.param(FILES[name], id=name, marks=[pytest.mark.smoke] * (name in _SMOKE))


@pytest.mark.parametrize("path", [_as_parameter(name) for name in sorted(FILES)])
def test_javascript(stack: Stack, key_of_small_team: str, path: Path) -> None:
    """Node prints what failed in a file; its results are written down by the file itself."""
    environment = environment_of(stack, EMBERBOX_TEST_KEY_OF_SMALL_TEAM=key_of_small_team)
    done = subprocess.run(
        [NODE, "--test-reporter=spec", path],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_there_are_files() -> None:
    assert len(FILES) >= 8
    assert set(FILES) >= _SMOKE
