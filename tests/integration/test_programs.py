"""The programs that people start: each runs to its end against a whole Emberbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stack import Stack

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]


def run(stack: Stack, *words: str) -> str:
    """What a Python program prints that finds the stack by its environment."""
    environment = {
        **os.environ,
        **{f"EMBERBOX_{name.upper()}": value for name, value in stack.sdk.items()},
        "EMBERBOX_HOME": str(stack.home.root),
        "EMBERBOX_ORCHESTRATOR_PORT": str(stack.ports.orchestrator),
    }
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_create_benchmark(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    counts = ("--cold", "1", "--clone", "2", "--burst", "2")
    printed = run(stack, "-m", "benchmarks", "create", "--json", str(file), *counts)

    result = json.loads(printed.splitlines()[-1])
    assert json.loads(file.read_text()) == result
    assert result["runs"] == {"cold": 1, "clone": 2, "burst": 2}
    assert result["burst20"]["succeeded"] == 2
    assert result["clone"]["first_command_ms"]["p50"] >= result["clone"]["ready_ms"]["p50"] > 0
    assert result["cold"]["ready_ms"]["p50"] > result["clone_on_host"]["ready_ms"]["p50"]
    assert result["machine"]["cores"] == os.cpu_count()


def test_many_at_once(stack: Stack) -> None:
    lines = run(stack, "examples/many_at_once.py").splitlines()
    assert lines[-1] == "exit codes: [0, 0, 0]"
    for name in ("ash", "beech", "cedar"):
        printed = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(name)]
        assert " ".join(printed).split() == ["1", "2", "3"]
