"""Starting a VMM."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.machines import spawn

if TYPE_CHECKING:
    from pathlib import Path


def test_one_that_ends_at_once_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pid: int) -> None:
        raise ProcessLookupError(pid)

    monkeypatch.setattr(spawn, "identify", gone)
    output = tmp_path / "vmm.log"
    where = spawn.Confinement(os.getuid(), (), tmp_path, output)
    with pytest.raises(OSError, match="it ended at once, exit status 3: no such machine"):
        spawn._start(["/bin/sh", "-c", "echo no such machine; exit 3"], [], where)
