"""How a Firecracker is started: by its jailer, or for want of one by itself.

The jailer gives it a root directory of its own with nothing in it but its program, three device
nodes and its view; limits of files; and takes root's rights from it. It removes nothing of that
afterwards: the root directory goes with the run directory. Network namespace and control group are
those in which it is started, as under any driver. Interface: Firecracker's docs/jailer.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.machines.firecracker import view

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import Surroundings
    from emberbox.orchestrator.machines.firecracker.view import View

_LONGEST_ID = 64
_DIGEST = 16

_OPEN_FILES = 256
_SPARE_FILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs on the host. Without a jailer, Firecracker sees the host's file system."""

    firecracker: Path
    jailer: Path | None


def largest_file(ram_mb: int, disk_bytes: int) -> int:
    """Bytes of the largest file that a VMM may write: its disk, or its guest's memory."""
    return max(ram_mb << 20, disk_bytes) + _SPARE_FILE_BYTES


def machine_id(name: str) -> str:
    """The VMM's name as Firecracker takes it: at most 64 characters, beginning as `name` does."""
    if len(name) <= _LONGEST_ID:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: _LONGEST_ID - _DIGEST - 1]}-{digest}"


def argv(programs: Programs, place: Surroundings, largest: int) -> list[str]:
    """What is executed. By the jailer it becomes Firecracker, as the very same process."""
    arguments = ("--api-sock", view.path(view.SOCKET))
    name = ("--id", machine_id(place.name))
    if programs.jailer is None:
        return [str(programs.firecracker), *name, *arguments]
    own = view.View.of(place)
    return [
        str(programs.jailer),
        *name,
        *("--exec-file", str(programs.firecracker)),
        *("--uid", str(place.uid), "--gid", str(place.uid)),
        *("--chroot-base-dir", str(own.jail)),
        *("--resource-limit", f"fsize={largest}"),
        *("--resource-limit", f"no-file={_OPEN_FILES}"),
        "--",
        *arguments,
    ]


def root_of(programs: Programs, own: View, name: str) -> Path | None:
    """The root directory that the jailer will give it, made; None without a jailer."""
    if programs.jailer is None:
        return None
    root = own.jail / programs.firecracker.name / machine_id(name) / "root"
    (root / view.SEEN_AT.relative_to("/")).mkdir(parents=True)
    return root
