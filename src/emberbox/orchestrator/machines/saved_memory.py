"""The file that holds what a paused VM's memory differs from its base.

    header   64 bytes, see `_HEADER`
    VMM      UTF-8 text: what the VM was started with
    index    (first page, number of pages), 32 bits each, for every run, in ascending order
    data     the pages of all runs one after the other, from the next multiple of the page size

Numbers are little-endian, as on every host that runs these VMs. Checksums cover header with VMM
and index, the data, and the device state in the file beside. The base is the snapshot that the VM
was cloned from, or nothing (memory that is all zero) for a VM that was booted. A file is
cumulative: base and file together are the whole memory.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import itertools
import os
import struct
import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from emberbox.orchestrator.errors import SnapshotUnusable
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import MachineSnapshot

STATE_FILE = "devices"
RAM_FILE = "ram"
MEMORY_FILE = "memory"
"""What a driver's directories hold: device state, and all RAM (of a snapshot) or what it differs
from its base (of a saved machine)."""

_MAGIC = b"EMBERMEM"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQIIIIII16x")
"""Magic, version, page size, RAM size, base, length of VMM, runs, checksums: of header, VMM and
index (as if it were 0 itself), of the data, of the device state."""

_NO_BASE, _SNAPSHOT = 0, 1
_BUFFER_BYTES = 4 << 20
_NUMBER = "I"
_RUN_BYTES = 8


class Source(Protocol):
    """The memory of a machine that stands still, as `save` reads it.

    size:  bytes of guest memory
    based: what is not its own is its base's
    """

    @property
    def size(self) -> int: ...

    @property
    def based(self) -> bool: ...

    def own_runs(self) -> Iterable[Run]:
        """What is the machine's own, in order. Raises MachineGone."""

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` with a part of one of the runs. Raises MachineError."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file says of itself. `based`: the pages lie over those of a snapshot."""

    made_with: str
    ram_bytes: int
    based: bool
    runs: tuple[Run, ...]
    state_checksum: int
    data_checksum: int = 0

    @property
    def data_start(self) -> int:
        """Where the data begins in the file."""
        head = _HEADER.size + len(self.made_with.encode()) + len(self.runs) * _RUN_BYTES
        return -(-head // PAGE) * PAGE

    @property
    def data_bytes(self) -> int:
        """How much memory the file holds."""
        return sum(run.length for run in self.runs)

    def encoded(self) -> bytes:
        """Header, VMM and index."""
        made_with = self.made_with.encode()
        rest = made_with + array(_NUMBER, _flat(self.runs)).tobytes()
        checksum = zlib.crc32(self._header(len(made_with), 0) + rest)
        return self._header(len(made_with), checksum) + rest

    def _header(self, text: int, checksum: int) -> bytes:
        return _HEADER.pack(
            _MAGIC,
            _VERSION,
            PAGE,
            self.ram_bytes,
            _SNAPSHOT if self.based else _NO_BASE,
            text,
            len(self.runs),
            checksum,
            self.data_checksum,
            self.state_checksum,
        )


def save(memory: Source, made_with: str, state: bytes, path: Path) -> int:
    """Write a stopped VM's memory to a new file, fsynced; the file's size.

    `state` is the device state at the same moment: one is good for nothing without the other.
    Raises MachineGone, MachineError, or OSError (ENOSPC before anything was copied).
    """
    runs = tuple(memory.own_runs())
    contents = Contents(made_with, memory.size, memory.based, runs, zlib.crc32(state))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = contents.data_start + contents.data_bytes
        os.posix_fallocate(fd, 0, size)
        checksum = _copy_out(memory, contents, fd)
        os.pwrite(fd, dataclasses.replace(contents, data_checksum=checksum).encoded(), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    return size


@dataclass(frozen=True, slots=True)
class SavedMemory:
    """A file opened by `opened`, its index verified and its data not yet."""

    contents: Contents
    _fd: int
    _path: Path

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Read the index. Raises SnapshotUnusable when it is damaged, OSError as usual."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # From the disk while the caller starts the VMM that it is for.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            yield cls(_read_contents(fd, path), fd, path)
        finally:
            os.close(fd)

    def verified_state(self, path: Path) -> bytes:
        """The device state that was saved with this. Raises SnapshotUnusable, OSError."""
        state = path.read_bytes()
        if zlib.crc32(state) != self.contents.state_checksum:
            raise _damaged(path, "it does not match the checksum kept with the memory")
        return state

    def load(self, write: Callable[[int, memoryview], object]) -> None:
        """Hand all pages to `write(offset in RAM, data)`.

        The data is verified on the way: what was written is good only when this returns.
        Raises SnapshotUnusable when it is damaged, what `write` raises, and OSError.
        """
        checksum = 0
        os.lseek(self._fd, self.contents.data_start, os.SEEK_SET)
        for pieces, buffer in _buffers(self.contents.runs):
            if os.readv(self._fd, [buffer]) < len(buffer):
                raise _damaged(self._path, "it ends too early")
            checksum = zlib.crc32(buffer, checksum)
            for offset, part in pieces:
                write(offset, part)
        if checksum != self.contents.data_checksum:
            raise _damaged(self._path, "its data does not match its checksum")

    def reader(self) -> Callable[[int, memoryview], None]:
        """Fills a buffer with a part of one of the runs, by its offset in RAM, not verified.

        It raises SnapshotUnusable when the file ends too early, OSError.
        """
        starts = [run.offset for run in self.contents.runs]
        lengths = (run.length for run in self.contents.runs)
        positions = list(itertools.accumulate(lengths, initial=self.contents.data_start))

        def read(offset: int, into: memoryview) -> None:
            run = bisect.bisect_right(starts, offset) - 1
            if os.preadv(self._fd, [into], positions[run] + offset - starts[run]) < len(into):
                raise _damaged(self._path, "it ends too early")

        return read


def materialise(snapshot: MachineSnapshot, saved: Path, directory: Path) -> MachineSnapshot:
    """A snapshot, in an existing empty directory, of what was saved of a clone of `snapshot`.

    Raises SnapshotUnusable, OSError.
    """
    with SavedMemory.opened(saved / MEMORY_FILE) as changes:
        merge(snapshot.directory / RAM_FILE, changes, directory / RAM_FILE)
        state = changes.verified_state(saved / STATE_FILE)
        made_with = changes.contents.made_with
    write_atomically(directory / STATE_FILE, state, 0o444)
    return dataclasses.replace(snapshot, directory=directory, made_with=made_with)


def merge(base: Path, saved: SavedMemory, path: Path, *, durable: bool = True) -> None:
    """Write all that a saved VM had in memory to a new sparse file, fsynced if `durable`.

    `base` is the RAM image that it was a clone of; a VM that was booted has none and it is not
    read. Raises SnapshotUnusable, OSError.
    """
    if saved.contents.based:
        copy_sparse(base, path)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(target, saved.contents.ram_bytes)
        saved.load(lambda offset, data: _write_all(target, data, offset))
        os.fchmod(target, 0o444)
        if durable:
            os.fsync(target)
    finally:
        os.close(target)


def _write_all(fd: int, data: memoryview, position: int) -> None:
    """Write all of `data` into a file. Raises OSError."""
    while data:
        written = os.pwrite(fd, data, position)
        data, position = data[written:], position + written


def _copy_out(memory: Source, contents: Contents, fd: int) -> int:
    checksum, position = 0, contents.data_start
    for pieces, buffer in _buffers(contents.runs):
        for offset, part in pieces:
            memory.read(offset, part)
        checksum = zlib.crc32(buffer, checksum)
        _write_all(fd, buffer, position)
        position += len(buffer)
    return checksum


def _buffers(
    runs: Iterable[Run],
) -> Iterator[tuple[list[tuple[int, memoryview]], memoryview]]:
    """One buffer again and again, laid out for the next runs: (offset in RAM, part), and the whole.

    Many small runs share a system call on the file this way, and large ones do not need memory
    of their size.
    """
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    pieces: list[tuple[int, memoryview]] = []
    used = 0
    for run in runs:
        offset, end = run.offset, run.offset + run.length
        while offset < end:
            length = min(end - offset, _BUFFER_BYTES - used)
            pieces.append((offset, buffer[used : used + length]))
            offset, used = offset + length, used + length
            if used == _BUFFER_BYTES:
                yield pieces, buffer
                pieces, used = [], 0
    if used:
        yield pieces, buffer[:used]


def _read_contents(fd: int, path: Path) -> Contents:
    head = os.pread(fd, _HEADER.size, 0)
    if len(head) < _HEADER.size:
        raise _damaged(path, "it has no whole header")
    magic, version, page, ram, base, text, count, _, *checksums = _HEADER.unpack(head)
    if (magic, version, page) != (_MAGIC, _VERSION, PAGE):
        raise SnapshotUnusable(f"{path} is no saved memory of version {_VERSION} for this host")
    length = text + count * _RUN_BYTES
    if _HEADER.size + length > os.fstat(fd).st_size:
        raise _damaged(path, "it ends too early")
    rest = os.pread(fd, length, _HEADER.size)
    made_with = rest[:text].decode(errors="replace")
    data, state = checksums
    contents = Contents(made_with, ram, base == _SNAPSHOT, _runs(rest[text:]), state, data)
    # Encoding computes the checksum anew.
    if contents.encoded() != head + rest or not _in_order(contents):
        raise _damaged(path, "its index does not match its checksum")
    return contents


def _runs(index: bytes) -> tuple[Run, ...]:
    numbers = array(_NUMBER, index)
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(Run(first * PAGE, count * PAGE) for first, count in pairs)


def _flat(runs: Iterable[Run]) -> Iterator[int]:
    for run in runs:
        yield run.offset // PAGE
        yield run.length // PAGE


def _in_order(contents: Contents) -> bool:
    end = 0
    for run in contents.runs:
        if run.offset < end or run.length <= 0:
            return False
        end = run.offset + run.length
    return end <= contents.ram_bytes


def _damaged(path: Path, how: str) -> SnapshotUnusable:
    return SnapshotUnusable(f"{path} is damaged: {how}")
