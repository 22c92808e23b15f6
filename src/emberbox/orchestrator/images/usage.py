"""Which images a process of this machine has open."""

from __future__ import annotations

import os
from pathlib import Path


def directories_in_use(root: Path) -> frozenset[Path]:
    """Image directories (`<root>/<kind>/<hash>`) with a file that some process has open.

    Reads /proc/*/fd: a VMM holds its disks open for as long as it lives. Processes that end
    meanwhile or belong to others are passed over.
    """
    prefix = f"{root.resolve()}/"
    depth = 2
    opened = (target for target in _open_files() if target.startswith(prefix))
    tails = (target.removeprefix(prefix).split("/") for target in opened)
    return frozenset(root.joinpath(*tail[:depth]) for tail in tails if len(tail) > depth)


def _open_files() -> list[str]:
    targets: list[str] = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            fds = list((process / "fd").iterdir())
        except OSError:
            continue
        targets.extend(filter(None, map(_target, fds)))
    return targets


def _target(fd: Path) -> str | None:
    try:
        return os.readlink(fd)  # noqa: PTH115 - a plain string, often no path at all
    except OSError:
        return None
