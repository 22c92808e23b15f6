"""The official package of the generation before, which speaks the v1 routes, on the same server."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "compat-2.45.txt"
PACKAGES = ROOT / ".compat" / "e2b-2.45"
PROGRAM = Path(__file__).parent / "old_generation.py"


@pytest.fixture(scope="module")
def packages() -> Path:
    """Where the old package and what it needs are installed, as locked."""
    stamp = PACKAGES / ".lock-sha256"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
        options = ["--quiet", "--upgrade", "--require-hashes", "--target", PACKAGES, "-r", LOCK]
        subprocess.run([*map(str, (*pip, *options))], check=True, timeout=200)
        stamp.write_text(wanted)
    return PACKAGES


def test_a_core_round(stack: Stack, packages: Path) -> None:
    options = {f"E2B_{name.upper()}": value for name, value in stack.sdk.items()}
    done = subprocess.run(
        [sys.executable, "-S", PROGRAM],  # without the packages of this environment
        env={**os.environ, **options, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"e2b": "2.45.1"}
