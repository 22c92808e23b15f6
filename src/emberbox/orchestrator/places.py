"""Where the files of sandboxes are: on the host, or on a file system that several hosts share."""

from __future__ import annotations

import contextlib
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.shared.home import Home

_ID_FILE = "emberbox-shared-id"
_SNAPSHOTS = "snapshots"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Places:
    """Run directories and snapshots, which must be on one file system: a disk is in both.

    `shared_id` is the same on all hosts that see the same files; empty: nobody else sees these.
    """

    run_directories: Path
    snapshots: Path
    shared: Path | None = None
    shared_id: str = ""

    @classmethod
    def of(cls, home: Home, shared: Path | None, node_id: str) -> Places:
        """Below the home, or below this node's own directory in the shared one.

        Raises StartupError when that cannot be used.
        """
        if shared is None:
            return cls(home.run_directories, home.snapshots)
        if not _NAME.fullmatch(node_id):
            raise StartupError(
                f"EMBERBOX_NODE_ID {node_id!r} cannot name a directory of EMBERBOX_SHARED_DIRECTORY"
            )
        try:
            own = shared / node_id
            own.mkdir(parents=True, exist_ok=True, mode=0o700)
            return cls(own / "sandboxes", own / _SNAPSHOTS, shared, _shared_id(shared))
        except OSError as error:
            raise StartupError(
                f"EMBERBOX_SHARED_DIRECTORY {shared} cannot be used: {error.strerror}"
            ) from error

    def others(self) -> Iterator[Path]:
        """The snapshots of other hosts that are reachable here."""
        if self.shared is not None:
            for directory in sorted(self.shared.glob(f"*/{_SNAPSHOTS}")):
                if directory != self.snapshots:
                    yield directory


def _shared_id(shared: Path) -> str:
    """Made by whoever comes first; linked into place whole, as several may come at once."""
    file = shared / _ID_FILE
    if not file.exists():
        beside = shared / f".{_ID_FILE}.{uuid.uuid4()}"
        beside.write_text(f"{uuid.uuid4()}\n")
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(beside)
        beside.unlink()
    return file.read_text().strip()
