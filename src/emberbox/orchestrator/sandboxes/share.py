"""What each VM gets of this host: its control group, or niceness where there are none."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import priority
from emberbox.orchestrator.cgroups import Limits, VmGroup, VmGroups, find
from emberbox.orchestrator.cgroups.groups import ORDINARY_WEIGHT
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Collection

    from emberbox.orchestrator.machines.driver import Hardware
    from emberbox.orchestrator.processes import ProcessIdentity

_log = structlog.get_logger(__name__)

AHEAD_WEIGHT = ORDINARY_WEIGHT // 3
"""Of a VM that nobody waits for yet: behind the others, and done in time on a busy host."""

_EXTRA_CORES = 1.0
_EXTRA_MB = 256
_TASKS = 256
"""What a VMM needs besides its guest's processors and memory: devices, translated code, threads
for disks, up to 64 for each.

Of memory it may take the guest's twice. The clone that is the first to touch a page which the
template never did makes that page for all others, too, in the template's RAM (a hole of a memfd has
no page that could be shared), and is charged for both. With less than that a guest that uses its
memory up ends its VMM.
"""

_REMOVAL_SECONDS = 2.0
_RETRY_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Shares:
    """Groups for the VMs of this host. `io` bounds bytes a second, by device, or nothing."""

    groups: VmGroups | None = None
    io: tuple[str, int] | None = None

    def of(self, slot: int, hardware: Hardware) -> Share:
        """The share of the VM in a slot. Raises OSError."""
        if self.groups is None:
            return Share()
        limits = Limits(
            cores=hardware.vcpu + _EXTRA_CORES,
            memory_mb=2 * hardware.ram_mb + _EXTRA_MB,
            tasks=_TASKS,
            io=self.io,
        )
        return Share(self.groups.make(slot, limits))

    def sweep(self, slots: Collection[int]) -> None:
        """Remove the groups of all other slots: garbage of a crash."""
        if self.groups is not None:
            self.groups.sweep(set(slots))

    def close(self) -> None:
        """Remove what is left when no VM is."""
        if self.groups is not None:
            self.groups.close()


@dataclass(frozen=True, slots=True)
class Share:
    """What one VM gets."""

    group: VmGroup | None = None

    def add(self, pid: int) -> None:
        """Let it be shared by a process, which is the VMM. Raises OSError."""
        if self.group is not None:
            self.group.add(pid)

    def give_way(self, process: ProcessIdentity) -> None:
        """Run behind those that somebody waits for. Raises OSError."""
        if self.group is None or not self.group.weigh(AHEAD_WEIGHT):
            priority.lower(process)

    def come_forward(self, process: ProcessIdentity) -> None:
        """Run as the others do. Raises OSError."""
        if self.group is None or not self.group.weigh(ORDINARY_WEIGHT):
            priority.raise_again(process)

    async def remove(self) -> None:
        """Take it away when its processes are gone. Raises TimeoutError while they are not."""
        if self.group is None:
            return
        # The kernel empties a group a moment after its last process was seen to end.
        async with asyncio.timeout(_REMOVAL_SECONDS):
            while not self.group.remove():  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(_RETRY_SECONDS)


def open_shares(parent: str, tag: str, state: Path, io_mb_s: int) -> Shares:
    """Find out what this host offers, and say what VMs are not bounded by.

    parent:  a group of cgroup v2, "auto", or "none"
    io_mb_s: what a VM may read and write in a second on the disk that holds `state`; 0: anything
    """
    groups, problem = usable(parent, tag)
    if problem:
        _log.warning("VMs are not bounded as they should be", reason=problem)
    io = (_device(state), io_mb_s << 20) if io_mb_s else None
    return Shares(groups, io)


def usable(parent: str, tag: str) -> tuple[VmGroups | None, str]:
    """The groups of a node, ready for use, if there can be any; what is wrong, or empty."""
    if parent == "none":
        return None, ""
    hint = "set EMBERBOX_CGROUP_PARENT to a group of cgroup v2 that is ours, or to none"
    try:
        hierarchy = find(None if parent == "auto" else Path(parent))
        if not hierarchy.version:
            return None, f"no control groups can be written to: {hint}"
        groups = VmGroups(hierarchy, tag)
        groups.prepare(_weight_of_all(hierarchy.version))
    except OSError as error:
        return None, f"no control groups can be made: {error}; {hint}"
    if hierarchy.missing:
        return groups, f"no cgroup controller for {', '.join(hierarchy.missing)}"
    return groups, ""


def _weight_of_all(version: int) -> int:
    """Of the VMs together, so that a program of ours gets twice what they get where it runs.

    In v2 they stand beside the group that our programs are in. In v1 they stand beside our
    programs themselves: each is weighed by its niceness, and a group's weight is divided among
    the processors it runs on.
    """
    if version == 2:
        return ORDINARY_WEIGHT // 2
    processors = os.cpu_count() or 1
    return max(round(ORDINARY_WEIGHT / 2 * processors * priority.weight_of_ours()), 1)


def _device(directory: Path) -> str:
    """The disk that holds a directory, as "major:minor". Raises StartupError when it has none."""
    number = directory.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    at = Path("/sys/dev/block") / name
    if not at.exists():
        raise StartupError(
            f"EMBERBOX_VM_IO_MB_S: {directory} is on no disk of its own: put EMBERBOX_HOME on"
            " one, or set it to 0"
        )
    # The limit is for whole disks.
    disk = at.resolve().parent if (at / "partition").exists() else at
    return (disk / "dev").read_text().strip()
