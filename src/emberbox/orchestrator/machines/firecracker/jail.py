"""How a Firecracker is started: by its jailer, or for want of one by itself.

The jailer gives it a root directory of its own with nothing in it but its program, three device
nodes and its view; a cgroup with bounds; limits of files; and takes root's rights from it. It
removes nothing of that afterwards: the root directory goes with the run directory, the cgroup by
`remove_cgroups`. Interface: Firecracker's docs/jailer.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.machines.firecracker import view

if TYPE_CHECKING:
    from emberbox.orchestrator.machines.driver import Surroundings
    from emberbox.orchestrator.machines.firecracker.view import View

_log = structlog.get_logger(__name__)

PARENT_CGROUP = "emberbox"
"""Below the root of cgroup v2; one for each VMM below it, by the VMM's name."""

CONTROLLERS = ("memory", "pids")

_LONGEST_ID = 64
_DIGEST = 16

# Beyond the guest's memory: Firecracker itself, and page cache that it cannot do without.
_OVERHEAD_MB = 256
# Its threads: one for each vCPU, and a few of its own.
_THREADS = 32
_OPEN_FILES = 256
_SPARE_FILE_MB = 64

_CGROUP_TRIES, _CGROUP_WAIT = 200, 0.01


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs on the host. Without a jailer, Firecracker sees the host's file system."""

    firecracker: Path
    jailer: Path | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one VMM may take. `largest_file_mb`: of what it writes, disk and memory."""

    memory_mb: int
    processes: int
    largest_file_mb: int

    @classmethod
    def of(cls, vcpu: int, ram_mb: int, disk_bytes: int) -> Bounds:
        """Those of a VM of that size."""
        largest = max(ram_mb, disk_bytes >> 20) + _SPARE_FILE_MB
        return cls(ram_mb + _OVERHEAD_MB, vcpu + _THREADS, largest)


def machine_id(name: str) -> str:
    """The VMM's name as Firecracker takes it: at most 64 characters, beginning as `name` does."""
    if len(name) <= _LONGEST_ID:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: _LONGEST_ID - _DIGEST - 1]}-{digest}"


def argv(programs: Programs, place: Surroundings, bounds: Bounds) -> list[str]:
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
        *("--cgroup-version", "2", "--parent-cgroup", PARENT_CGROUP),
        *("--cgroup", f"memory.max={bounds.memory_mb << 20}"),
        *("--cgroup", f"pids.max={bounds.processes}"),
        *("--resource-limit", f"fsize={bounds.largest_file_mb << 20}"),
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


def cgroup_root(mounts: Path = Path("/proc/self/mounts")) -> Path | None:
    """Where cgroup v2 is mounted, as the jailer looks for it."""
    for line in mounts.read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    return None


async def remove_cgroup(root: Path, name: str) -> None:
    """Remove the cgroup of a VMM that has ended; the kernel may take a moment to empty it."""
    cgroup = root / PARENT_CGROUP / machine_id(name)
    for _ in range(_CGROUP_TRIES):
        try:
            cgroup.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                _log.error("a cgroup was not removed", cgroup=str(cgroup), reason=str(error))
                return
            await asyncio.sleep(_CGROUP_WAIT)
        else:
            return
    _log.error("a cgroup was not removed", cgroup=str(cgroup), reason="it is in use")


def remove_cgroups(root: Path, names: str) -> None:
    """Remove those of VMMs that have ended, whose names begin with `names`."""
    for cgroup in (root / PARENT_CGROUP).glob(f"{names}*"):
        with contextlib.suppress(OSError):  # one that is in use
            cgroup.rmdir()
