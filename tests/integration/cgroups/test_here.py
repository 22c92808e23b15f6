"""Control groups of this machine, whichever version it has, with real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.cgroups import find
from tests.integration.cgroups import checks
from tests.stack import LANE

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.cgroups import VmGroups


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_groups(check: Callable[[VmGroups], None]) -> None:
    assert find().version, "this machine lets nobody make control groups"
    with checks.groups(f"checks{LANE}") as made:
        check(made)
