"""What an orchestrator must know of a VM that another one has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.errors import MachineGone
from emberbox.orchestrator.machines.firecracker.facts import Facts

if TYPE_CHECKING:
    from pathlib import Path


def test_facts_of_another_version(tmp_path: Path) -> None:
    facts = Facts("made with", "1.16.1", 512, loaded=True)
    facts.write(tmp_path)
    file = tmp_path / "vmm.json"
    file.write_text(file.read_text().replace("{", '{"later": 1, ', 1))
    assert Facts.read(tmp_path) == facts
    file.write_text("[]")
    with pytest.raises(MachineGone):
        Facts.read(tmp_path)
