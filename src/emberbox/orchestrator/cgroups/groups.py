"""The groups of one node's VMs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.cgroups.hierarchy import Hierarchy

ORDINARY_WEIGHT = 100
"""Of a VM, and in v2 of every group that nobody has weighed."""

_V1_SHARES = 1024
"""What v1 calls the same."""

_PERIOD = 100_000
"""Microseconds in which a CPU limit holds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one VM may take, at most.

    cores:     of CPU time
    memory_mb: that its VMM has touched, guest memory included
    tasks:     threads of its VMM
    io:        bytes a second that it may read, and as many that it may write, by device as
               "major:minor"
    """

    cores: float
    memory_mb: int
    tasks: int
    io: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class VmGroup:
    """The group of one VM: in v1 a directory for each controller."""

    version: int
    directories: dict[str, Path]

    def add(self, pid: int) -> None:
        """Move a process into it, with all its threads. Raises OSError."""
        for directory in self._each():
            _write(directory / "cgroup.procs", str(pid))

    def weigh(self, weight: int) -> bool:
        """Give it a share of the CPU; False when there is no controller for that."""
        if "cpu" not in self.directories:
            return False
        _weigh(self.version, self.directories["cpu"], weight)
        return True

    def remove(self) -> bool:
        """Remove it; False while something is still in it."""
        left = False
        for directory in self._each():
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                left = True
        return not left

    def limit(self, limits: Limits) -> None:
        """Put the limits in force. Raises OSError."""
        written = _in_v2(limits) if self.version == 2 else _in_v1(limits)
        for controller, name, text in written:
            if controller in self.directories:
                _write(self.directories[controller] / name, text)

    def make(self) -> None:
        """Make its directories. Raises OSError."""
        for directory in self._each():
            directory.mkdir(exist_ok=True)

    def _each(self) -> list[Path]:
        return list(dict.fromkeys(self.directories.values()))


class VmGroups:
    """All groups of a node below one that is its own, `emberbox-<tag>`."""

    def __init__(self, hierarchy: Hierarchy, tag: str) -> None:
        self.hierarchy = hierarchy
        self._own = VmGroup(
            hierarchy.version,
            {name: at / f"emberbox-{tag}" for name, at in hierarchy.parents.items()},
        )

    def prepare(self, weight: int) -> None:
        """Make the node's own group, of that weight against what is beside it.

        Raises OSError, in v2 also when the parent holds processes and is not the root (EBUSY).
        """
        self._own.make()
        if self.hierarchy.version == 2:
            names = " ".join(f"+{name}" for name in self.hierarchy.parents)
            for parent in {*self.hierarchy.parents.values()}:
                _write(parent / "cgroup.subtree_control", names)
            for own in {*self._own.directories.values()}:
                _write(own / "cgroup.subtree_control", names)
        self._own.weigh(weight)

    def make(self, number: int, limits: Limits) -> VmGroup:
        """The group of the VM in a slot, empty and with its limits. Raises OSError."""
        group = self.group(number)
        group.make()
        try:
            group.limit(limits)
        except BaseException:
            group.remove()
            raise
        return group

    def group(self, number: int) -> VmGroup:
        """The group of the VM in a slot, made or not."""
        directories = self._own.directories
        return VmGroup(
            self.hierarchy.version, {name: at / f"vm-{number}" for name, at in directories.items()}
        )

    def sweep(self, keep: set[int]) -> None:
        """Remove the groups of other slots: garbage of a crash."""
        for number in set(self._numbers()) - keep:
            self.group(number).remove()

    def close(self) -> None:
        """Remove the node's own group, if no VM is in it."""
        self._own.remove()

    def _numbers(self) -> Iterator[int]:
        for own in self._own.directories.values():
            for directory in own.glob("vm-*"):
                with contextlib.suppress(ValueError):
                    yield int(directory.name.removeprefix("vm-"))


def _in_v2(limits: Limits) -> Iterator[tuple[str, str, str]]:
    """Controller, file and content, as in the kernel's admin-guide/cgroup-v2."""
    yield "cpu", "cpu.max", f"{round(limits.cores * _PERIOD)} {_PERIOD}"
    yield "memory", "memory.max", str(limits.memory_mb << 20)
    yield "pids", "pids.max", str(limits.tasks)
    if limits.io is not None:
        device, rate = limits.io
        yield "io", "io.max", f"{device} rbps={rate} wbps={rate}"


def _in_v1(limits: Limits) -> Iterator[tuple[str, str, str]]:
    """As in admin-guide/cgroup-v1. Only I/O that bypasses the page cache is bounded there."""
    yield "cpu", "cpu.cfs_quota_us", str(round(limits.cores * _PERIOD))
    yield "memory", "memory.limit_in_bytes", str(limits.memory_mb << 20)
    yield "pids", "pids.max", str(limits.tasks)
    if limits.io is not None:
        device, rate = limits.io
        yield "io", "blkio.throttle.read_bps_device", f"{device} {rate}"
        yield "io", "blkio.throttle.write_bps_device", f"{device} {rate}"


def _weigh(version: int, directory: Path, weight: int) -> None:
    if version == 2:
        _write(directory / "cpu.weight", str(min(weight, 10_000)))
    else:
        _write(directory / "cpu.shares", str(weight * _V1_SHARES // ORDINARY_WEIGHT))


def _write(path: Path, text: str) -> None:
    # One write: the kernel takes a line a call.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
