"""Where this machine lets us make control groups: cgroup v2, or the separate ones of v1."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTROLLERS = ("cpu", "memory", "pids", "io")
"""Those that we use, by their names in v2."""

_V1_NAMES = {"cpu": "cpu", "memory": "memory", "pids": "pids", "io": "blkio"}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """For each controller that is there, the directory in which our groups go.

    In v2 it is one for all. `version` is 0 when there are none.
    """

    version: int
    parents: dict[str, Path]

    @property
    def missing(self) -> tuple[str, ...]:
        """The controllers that are not there."""
        return tuple(name for name in CONTROLLERS if name not in self.parents)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy: the group that it shows as its root, and where."""

    kind: str
    root: str
    point: Path
    options: frozenset[str]


def find(
    parent: Path | None = None,
    mountinfo: Path = Path("/proc/self/mountinfo"),
    own: Path = Path("/proc/self/cgroup"),
) -> Hierarchy:
    """What is mounted and can be written to. `parent` is a group of v2 to use.

    By default v2's root, where a service manager that ends our service ends no VM; in v1 the
    group that this process is in. Raises OSError when `parent` is no group of v2.
    """
    if parent is not None:
        return Hierarchy(2, _of_v2(parent))
    mounts = [_mount(line) for line in mountinfo.read_text().splitlines()]
    for mount in mounts:
        # Beside v1, v2 may be mounted and have nothing.
        if mount.kind == "cgroup2" and (parents := _of_v2(mount.point)):
            return Hierarchy(2, parents)
    parents = _of_v1([mount for mount in mounts if mount.kind == "cgroup"], own)
    return Hierarchy(1 if parents else 0, parents)


def _mount(line: str) -> _Mount:
    """A line of mountinfo, proc(5)."""
    before, _, after = line.partition(" - ")
    fields = before.split(" ")
    kind, _source, options = after.split(" ", 2)
    return _Mount(kind, fields[3], Path(fields[4]), frozenset(options.split(",")))


def _of_v2(parent: Path) -> dict[str, Path]:
    available = (parent / "cgroup.controllers").read_text().split()
    if not os.access(parent, os.W_OK):
        return {}
    return {name: parent for name in CONTROLLERS if name in available}


def _of_v1(mounts: Iterable[_Mount], own: Path) -> dict[str, Path]:
    inside = _own_groups(own)
    found = {}
    for name, in_v1 in _V1_NAMES.items():
        for mount in mounts:
            if in_v1 in mount.options:
                parent = mount.point / _below(mount.root, inside.get(in_v1, "/"))
                if os.access(parent, os.W_OK):
                    found[name] = parent
    return found


def _own_groups(own: Path) -> dict[str, str]:
    """The group of this process by controller, cgroups(7)."""
    groups: dict[str, str] = {}
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _below(root: str, path: str) -> str:
    """A group's path as its mount shows it, which may show a part only."""
    return path.removeprefix(root.rstrip("/")).lstrip("/") if path.startswith(root) else ""
