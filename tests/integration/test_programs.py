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


def _environment(stack: Stack | None) -> dict[str, str]:
    if stack is None:
        return dict(os.environ)
    return {
        **os.environ,
        **{f"EMBERBOX_{name.upper()}": value for name, value in stack.sdk.items()},
        "EMBERBOX_HOME": str(stack.home.root),
        "EMBERBOX_ORCHESTRATOR_PORT": str(stack.ports.orchestrator),
    }


def run(stack: Stack | None, *words: str) -> str:
    """What a Python program prints that finds a stack by its environment, or none."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=_environment(stack),
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_the_create_benchmark(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    counts = {
        **dict.fromkeys(("cold", "refills", "peers", "busy", "pool_size"), 1),
        **dict.fromkeys(("clone", "pool", "back_to_back", "burst"), 2),
        "large_burst": 3,
    }
    flags = [f"--{name.replace('_', '-')}={count}" for name, count in counts.items()]
    printed = run(None, "-m", "benchmarks", "create", "--json", str(file), *flags)

    result = json.loads(printed.splitlines()[-1])
    assert json.loads(file.read_text()) == result
    assert result["runs"] == counts
    for kind in ("pool", "pool_back_to_back", "clone"):
        assert result[kind]["first_command_ms"]["p50"] >= result[kind]["ready_ms"]["p50"] > 0
    assert result["cold"]["ready_ms"]["p50"] > result["pool"]["ready_ms"]["p50"]
    assert {"auth", "reserve", "host", "host.claim", "host.init"} <= result["steps_ms"].keys()
    assert result["refill_cpu_ms"] > 0
    assert result["busy"]["true_p50_ms"] > 0
    for burst, count in (("burst20", 2), ("burst100", 3)):
        assert (result[burst]["succeeded"], result[burst]["orphans"]) == (count, 0)
    for peer in result["peers"]:
        assert peer.get("error") or peer["ratio"] > 0
    assert result["machine"]["cores"] == os.cpu_count()


@pytest.mark.exhaustive
def test_many_at_once(stack: Stack) -> None:
    lines = run(stack, "examples/many_at_once.py").splitlines()
    assert lines[-1] == "exit codes: [0, 0, 0]"
    for name in ("ash", "beech", "cedar"):
        printed = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(name)]
        assert " ".join(printed).split() == ["1", "2", "3"]
