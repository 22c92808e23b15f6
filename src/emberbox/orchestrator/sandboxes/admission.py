"""Whether the host takes one more sandbox: it refuses before memory or disk runs out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import AdmissionRefused

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import Hardware


@dataclass(frozen=True, slots=True)
class Limits:
    """What this host gives to sandboxes.

    max_sandboxes:     VMs at once
    memory_overcommit: RAM promised to all VMs, as a multiple of the host's memory; clones share
                       clean pages and rarely touch all they are promised
    memory_reserve_mb: kept free for the host and its programs
    disk_reserve_mb:   kept free on the state directory's file system
    """

    max_sandboxes: int
    memory_overcommit: float
    memory_reserve_mb: int
    disk_reserve_mb: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the host has at this moment."""

    sandboxes: int
    ram_promised_mb: int
    memory_total_mb: int
    memory_available_mb: int
    disk_available_mb: int
    starting: int = 0

    def without_clones(self, clones: int) -> Usage:
        """The same when warm clones, which are not in it otherwise, have made room."""
        return replace(self, memory_available_mb=self.memory_available_mb + _START_MB * clones)


# A clone that starts touches about this much of its own before it is ready for work.
_START_MB = 64


def clone_room(limits: Limits, usage: Usage, ram_mb: int) -> int:
    """How many more warm clones of this size memory holds; negative when there are too many.

    They leave twice the reserve free, so that none has to go for a sandbox at the last moment.
    """
    free = usage.memory_available_mb - _START_MB * usage.starting - 2 * limits.memory_reserve_mb
    unpromised = int(usage.memory_total_mb * limits.memory_overcommit) - usage.ram_promised_mb
    return min(free // _START_MB, unpromised // ram_mb)


def check(limits: Limits, usage: Usage, asked: Hardware) -> None:
    """Return when there is room. Raises AdmissionRefused with the reason and the setting."""
    if usage.sandboxes >= limits.max_sandboxes:
        raise AdmissionRefused(
            f"the host is full: it runs {usage.sandboxes} sandboxes"
            f" (EMBERBOX_MAX_SANDBOXES={limits.max_sandboxes})"
        )
    promised = usage.ram_promised_mb + asked.ram_mb
    if promised > usage.memory_total_mb * limits.memory_overcommit:
        raise AdmissionRefused(
            f"the host has promised {usage.ram_promised_mb} MiB of its {usage.memory_total_mb} MiB"
            f" memory and cannot promise {asked.ram_mb} MiB more"
            f" (EMBERBOX_MEMORY_OVERCOMMIT={limits.memory_overcommit})"
        )
    # Those that are starting have not taken theirs yet.
    starting = _START_MB * (1 + usage.starting)
    if usage.memory_available_mb - starting < limits.memory_reserve_mb:
        raise AdmissionRefused(
            f"the host has {usage.memory_available_mb} MiB of free memory left"
            f" (EMBERBOX_MEMORY_RESERVE_MB={limits.memory_reserve_mb})"
        )
    if usage.disk_available_mb < limits.disk_reserve_mb:
        raise AdmissionRefused(
            f"the host has {usage.disk_available_mb} MiB of free disk left"
            f" (EMBERBOX_DISK_RESERVE_MB={limits.disk_reserve_mb})"
        )


@dataclass(frozen=True, slots=True)
class PauseRoom:
    """Disk, in MiB, when a sandbox is to be paused: what there is, what its memory may take,
    what must be left."""

    available_mb: int
    wanted_mb: int
    reserve_mb: int


def pause_reserve_mb(limits: Limits) -> int:
    """What a pause leaves free: less than a create, so that a host that takes no more sandboxes
    can still put away those that it has."""
    return limits.disk_reserve_mb // 4


def check_pause(room: PauseRoom) -> None:
    """Return when the disk will hold one more snapshot. Raises AdmissionRefused."""
    if room.available_mb - room.wanted_mb < room.reserve_mb:
        raise AdmissionRefused(
            f"the host has {room.available_mb} MiB of free disk left and the memory of this"
            f" sandbox may take {room.wanted_mb} MiB: make room on the file system of"
            " EMBERBOX_HOME (EMBERBOX_DISK_RESERVE_MB)"
        )


def resident_mb(pid: int) -> int:
    """Memory that a process has touched, what it shares with others included, in MiB."""
    total = 0
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("RssAnon", "RssShmem", "VmSwap"):
                total += int(rest.split()[0])
    return total // 1024


def memory_mb() -> tuple[int, int]:
    """Total and available memory of this host, in MiB."""
    values: dict[str, int] = {}
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - read on every create
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) // 1024
            if name == "MemAvailable":
                break
    return values["MemTotal"], values["MemAvailable"]


def disk_available_mb(path: Path) -> int:
    """Free space for root on the file system of `path`, in MiB."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize >> 20
