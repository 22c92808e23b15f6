"""The memory that a VMM has written, joined with what was saved of it before.

What a VMM writes is copied before it is anybody's: a VMM that somebody has taken over may keep
the file open and change it later.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.images.disks import data_extents
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.orchestrator.machines.saved_memory import SavedMemory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHUNK = 1 << 20
_EMPTY_PAGE = bytes(PAGE)
_EMPTY_CHUNK = bytes(_CHUNK)


@dataclass(frozen=True, slots=True)
class Whole:
    """All memory of a VM in one file. Pages that are all zero are left out."""

    fd: int
    size: int
    based: bool = False

    def own_runs(self) -> list[Run]:
        """The pages that are not all zero."""
        return _joined(_nonzero(self.fd, self.size))

    def read(self, offset: int, into: memoryview) -> None:
        """From the file. Raises MachineError."""
        _read(self.fd, offset, into)


class Changed:
    """What a VM has changed since its last save, over that save if there was one.

    In the file of changes all else is a hole.
    """

    def __init__(self, fd: int, size: int, layer: SavedMemory | None) -> None:
        self._fd = fd
        self._read_layer = layer.reader() if layer else None
        self.size = size
        self.based = layer.contents.based if layer else True
        changed = [Run(start, end - start) for start, end in data_extents(fd, size)]
        kept = list(_without(layer.contents.runs, changed)) if layer else []
        self._runs = sorted(changed + kept)
        self._changed = set(changed)
        self._starts = [run.offset for run in self._runs]

    def own_runs(self) -> list[Run]:
        """Of both."""
        return self._runs

    def read(self, offset: int, into: memoryview) -> None:
        """From where it is newest. Raises MachineError."""
        run = self._runs[bisect.bisect_right(self._starts, offset) - 1]
        if self._read_layer is None or run in self._changed:
            _read(self._fd, offset, into)
        else:
            self._read_layer(offset, into)


def write_sparse(memory: Whole, path: Path) -> None:
    """All memory as a new file that nobody may write, fsynced. Raises MachineError, OSError."""
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        os.ftruncate(target, memory.size)
        for run in memory.own_runs():
            for offset in range(run.offset, run.offset + run.length, _CHUNK):
                part = bytearray(min(_CHUNK, run.offset + run.length - offset))
                memory.read(offset, memoryview(part))
                os.pwrite(target, part, offset)
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


@contextlib.contextmanager
def opened_layer(path: Path) -> Iterator[SavedMemory | None]:
    """What was saved last; None when nothing was. Raises SnapshotUnusable, OSError."""
    if not path.exists():
        yield None
        return
    with SavedMemory.opened(path) as layer:
        yield layer


def _nonzero(fd: int, size: int) -> Iterator[Run]:
    for start, end in data_extents(fd, size):
        for position in range(start, end, _CHUNK):
            chunk = os.pread(fd, min(_CHUNK, end - position), position)
            if chunk == _EMPTY_CHUNK:
                continue
            for offset in range(0, len(chunk), PAGE):
                if chunk[offset : offset + PAGE] != _EMPTY_PAGE:
                    yield Run(position + offset, PAGE)


def _joined(runs: Iterable[Run]) -> list[Run]:
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1].offset + joined[-1].length == run.offset:
            joined[-1] = Run(joined[-1].offset, joined[-1].length + run.length)
        else:
            joined.append(run)
    return joined


def _without(runs: Iterable[Run], others: list[Run]) -> Iterator[Run]:
    """The parts of `runs` that no other covers; both in order."""
    position = 0
    for run in runs:
        start, end = run.offset, run.offset + run.length
        while position < len(others) and others[position].offset + others[position].length <= start:
            position += 1
        at = position
        while at < len(others) and others[at].offset < end:
            if others[at].offset > start:
                yield Run(start, others[at].offset - start)
            start = others[at].offset + others[at].length
            at += 1
        if start < end:
            yield Run(start, end - start)


def _read(fd: int, offset: int, into: memoryview) -> None:
    if os.preadv(fd, [into], offset) < len(into):
        raise MachineError("the memory that Firecracker wrote became shorter")
