"""The memory that a VMM has written, and what was written of it before.

What a VMM writes is copied before it is anybody's: a VMM that somebody has taken over may keep
the file open and change it later.
"""

from __future__ import annotations

import bisect
import itertools
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.images.disks import copy_data, data_extents
from emberbox.orchestrator.machines.pages import PAGE, Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Whole:
    """All memory of a VM in one file. `based`: what is in it that is its base's is not known."""

    fd: int
    size: int
    based: bool

    def own_runs(self) -> list[Run]:
        """All of it; of a VM without a base what is no hole."""
        return [Run(0, self.size)] if self.based else _extents(self.fd, self.size)

    def read(self, offset: int, into: memoryview) -> None:
        """From the file. Raises MachineError."""
        _read(self.fd, offset, into)


class Changed:
    """What a VM has changed since it was loaded, over what was loaded.

    loaded:  the memory that it was loaded from
    changes: what is no hole has changed since
    before:  what of the loaded memory differed from its base already, in order
    """

    def __init__(
        self, loaded: int, changes: int, size: int, *, based: bool, before: Sequence[Run]
    ) -> None:
        self._loaded, self._changes = loaded, changes
        self.size, self.based = size, based
        self._changed = _extents(changes, size)
        self._starts = [run.offset for run in self._changed]
        self._runs = _united([*self._changed, *before])

    def own_runs(self) -> list[Run]:
        """Both: some pages may be as their base by now."""
        return self._runs

    def read(self, offset: int, into: memoryview) -> None:
        """From where it is newest. Raises MachineError."""
        _read(self._loaded, offset, into)
        end = offset + len(into)
        at = max(bisect.bisect_right(self._starts, offset) - 1, 0)
        for run in itertools.takewhile(lambda run: run.offset < end, self._changed[at:]):
            first, last = max(run.offset, offset), min(run.offset + run.length, end)
            if first < last:
                _read(self._changes, first, into[first - offset : last - offset])


def add(dump: int, changes: Path) -> None:
    """Copy what a VMM has dumped of changes over those of before. Raises OSError."""
    target = os.open(changes, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        copy_data(dump, target)
    finally:
        os.close(target)


def write_sparse(fd: int, size: int, path: Path) -> None:
    """All memory as a new file that nobody may write, without what is zero, fsynced.

    Raises MachineError, OSError.
    """
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        os.ftruncate(target, size)
        for run in _extents(fd, size):
            for offset in range(run.offset, run.offset + run.length, _CHUNK):
                part = bytearray(min(_CHUNK, run.offset + run.length - offset))
                _read(fd, offset, memoryview(part))
                for at in _filled(part):
                    os.pwrite(target, part[at : at + PAGE], offset + at)
        os.fchmod(target, 0o444)
        os.fsync(target)
    finally:
        os.close(target)


def exact_holes(directory: Path) -> bool:
    """Whether the file system tells holes by the page: tried, as file systems differ.

    Where it does not, what changed cannot be told from a file of changes. Raises OSError.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        file.truncate(2 * _CHUNK)
        os.pwrite(file.fileno(), b"x" * PAGE, _CHUNK)
        return data_extents(file.fileno(), 2 * _CHUNK) == [(_CHUNK, _CHUNK + PAGE)]


def _extents(fd: int, size: int) -> list[Run]:
    return [Run(start, end - start) for start, end in data_extents(fd, size)]


def _united(runs: Sequence[Run]) -> list[Run]:
    united: list[Run] = []
    for run in sorted(runs):
        end = united[-1].offset + united[-1].length if united else -1
        if run.offset <= end:
            length = max(end, run.offset + run.length) - united[-1].offset
            united[-1] = Run(united[-1].offset, length)
        else:
            united.append(run)
    return united


def _filled(part: bytearray) -> list[int]:
    """Where the pages begin that are not all zero."""
    if not any(part):
        return []
    return [at for at in range(0, len(part), PAGE) if any(part[at : at + PAGE])]


def _read(fd: int, offset: int, into: memoryview) -> None:
    if os.preadv(fd, [into], offset) < len(into):
        raise MachineError("a file of memory became shorter")
