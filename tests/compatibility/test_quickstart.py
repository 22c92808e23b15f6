"""The quickstart as a user runs it, with either SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.smoke, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("sdk", [pytest.param("emberbox", marks=pytest.mark.exhaustive), "e2b"])
def test_the_quickstart_runs_with_either_sdk(stack: Stack, sdk: str, free_port: int) -> None:
    """Its links by TLS included, whose names are the SDK's."""
    prefix = sdk.upper()
    with stack.restarted("--tls", "--tls-port", str(free_port)):
        variables = {f"{prefix}_{name.upper()}": value for name, value in stack.sdk.items()}
        variables |= {
            "EMBERBOX_QUICKSTART_SDK": sdk,
            "EMBERBOX_QUICKSTART_CA": stack.facts["ca_file"],
        }
        done = subprocess.run(
            [sys.executable, EXAMPLES / "quickstart.py"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=220,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f".emberbox.localhost:{free_port}/ with curl" in done.stdout
