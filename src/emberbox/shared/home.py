"""Where Emberbox keeps its state on a machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def default_home() -> Path:
    """`EMBERBOX_HOME`, or `/var/lib/emberbox` as root and the user's data directory otherwise."""
    configured = os.environ.get("EMBERBOX_HOME")
    if configured:
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/var/lib/emberbox")
    return Path.home() / ".local" / "share" / "emberbox"


@dataclass(frozen=True, slots=True)
class Home:
    """The files under `EMBERBOX_HOME`, each named once."""

    root: Path

    @property
    def api_key(self) -> Path:
        """The key that the first `up` made (0600)."""
        return self.root / "api_key"

    @property
    def internal_secret(self) -> Path:
        """The secret between our own programs (0600)."""
        return self.root / "internal_secret"

    @property
    def database(self) -> Path:
        """SQLite file of the API server."""
        return self.root / "emberbox.db"

    @property
    def images(self) -> Path:
        """Kernel, initrd, runtime and root images, by content hash."""
        return self.root / "images"

    @property
    def orchestrator(self) -> Path:
        """State of this host's orchestrator."""
        return self.root / "orchestrator"

    @property
    def run_directories(self) -> Path:
        """One directory for each sandbox that is not wholly gone."""
        return self.orchestrator / "sandboxes"

    @property
    def pool(self) -> Path:
        """Warm clones, nobody's sandboxes; on the file system of the run directories."""
        return self.orchestrator / "pool"

    @property
    def snapshots(self) -> Path:
        """Paused sandboxes; on the file system of the run directories."""
        return self.orchestrator / "snapshots"

    @property
    def templates(self) -> Path:
        """Template builds of this host."""
        return self.orchestrator / "templates"
