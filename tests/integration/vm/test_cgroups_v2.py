"""Control groups of version 2, which the machine that runs the tests may lack: in a guest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import emberbox.orchestrator.cgroups
from tests.integration.cgroups import checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import Sandbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300), pytest.mark.exhaustive]

PACKAGE = "/tmp/code/emberbox/orchestrator/cgroups"


def test_our_groups_do_in_version_2_what_they_must(create: Callable[..., Sandbox]) -> None:
    sandbox = create(timeout=300)
    for source in Path(emberbox.orchestrator.cgroups.__file__).parent.glob("*.py"):
        sandbox.files.write(f"{PACKAGE}/{source.name}", source.read_text())
    sandbox.files.write("/tmp/code/checks.py", Path(checks.__file__).read_text())
    # The packages above it would import what a guest has not.
    for package in ("emberbox", "emberbox/orchestrator"):
        sandbox.files.write(f"/tmp/code/{package}/__init__.py", "")
    told = sandbox.commands.run("sudo python3 /tmp/code/checks.py 2>&1", timeout=240).stdout
    lines = told.splitlines()
    assert lines[0].startswith("version 2,"), told
    assert lines[-1] == "all ok", told
    assert sum(line.startswith("ok ") for line in lines) == len(checks.CHECKS), told
