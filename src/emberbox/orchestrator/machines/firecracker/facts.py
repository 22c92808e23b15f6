"""What an orchestrator must know of a VM that another one has started."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import MachineGone
from emberbox.orchestrator.machines.firecracker.version import Version
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_FACTS_FILE = "vmm.json"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a VM was started with, as kept in its run directory.

    loaded:   it was not booted, and its dirty pages are tracked
    based:    its memory has a snapshot under it
    saved_mb: what of its memory was its own when it was loaded
    """

    made_with: str
    version: str
    ram_mb: int
    loaded: bool = False
    based: bool = False
    saved_mb: int = 0

    def write(self, directory: Path) -> None:
        """Raises OSError."""
        text = json.dumps(asdict(self)).encode()
        write_atomically(directory / _FACTS_FILE, text, 0o600, durable=False)

    @classmethod
    def read(cls, directory: Path) -> Facts:
        """Raises MachineGone when they are not there: its start was broken off."""
        names = {f.name for f in dataclasses.fields(cls)}
        try:
            data = json.loads((directory / _FACTS_FILE).read_bytes())
            # Another version may have written it.
            return cls(**{name: value for name, value in data.items() if name in names})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise MachineGone(f"{directory} does not tell of a Firecracker: {error}") from error

    @property
    def tracks_changes(self) -> bool:
        """Whether a Diff snapshot of it can be right."""
        version = Version.parse(self.version)
        return self.loaded and version is not None and version.saves_changes_of(self.ram_mb)
