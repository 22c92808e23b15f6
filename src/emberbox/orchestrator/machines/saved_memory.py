"""Memory that is saved and loaded: what a paused VM differs from its base, page by page.

Most pages that a VM has written differ from the template's in a few bytes (counters, links), and
some not at all: these are left out, and the others are compressed with the template's for a
dictionary. An idle VM of some MiB is some 100 KiB then, and the disk is what a pause waits for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import lz4.block

from emberbox.orchestrator.errors import SnapshotUnusable
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.ahead import Ahead
from emberbox.orchestrator.machines.memory_format import (
    BLOCK_BYTES,
    DATA_START,
    Block,
    Contents,
    damaged,
    read_contents,
    write_all,
    write_contents,
)
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.shared.sidefile import start_writeback, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import MachineSnapshot

STATE_FILE = "devices"
RAM_FILE = "ram"
MEMORY_FILE = "memory"
"""What a driver's directories hold: device state, and all RAM (of a snapshot) or what it differs
from its base (of a saved machine)."""

_CHUNK_BYTES = 2 << 20
"""What one thread does at a time."""
_SAVING_AHEAD, _LOADING_AHEAD = 4, 16
_GAP_BYTES = 8 * PAGE
"""Own pages that are no further apart are read in one go, with what is between them."""

Base = Callable[[int, int], bytes]
"""Reads the base: offset in RAM and length to the bytes there. Raises OSError."""

Part = tuple[int, memoryview]
"""Pages with their offset in RAM."""

Pages = Iterable[list[Part]]
"""All pages of a saved VM, in portions."""


class Source(Protocol):
    """The memory of a machine that stands still, as `save` reads it, from several threads.

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
        """Fill `into` with memory from `offset` on. Raises MachineError."""


def base_of(fd: int) -> Base:
    """The base in a file. Not mapped: a file that shrinks, or a bad disk, would end us."""

    def read(offset: int, length: int) -> bytes:
        data = os.pread(fd, length, offset)
        if len(data) < length:
            raise OSError(errno.EIO, "the RAM image ends before the memory that lies over it")
        return data

    return read


def save(
    memory: Source,
    made_with: str,
    state: bytes,
    path: Path,
    base: Base | None = None,
    *,
    durable: bool = True,
) -> int:
    """Write a stopped VM's memory to a new file, fsynced if `durable`; the file's size.

    `state` is the device state at the same moment: one is good for nothing without the other.
    With `base` it is compressed against that, which `SavedMemory.load` must be given again.
    Raises MachineGone, MachineError, or OSError (ENOSPC among them).
    """
    chunks = _portions(_spans(memory, base), itertools.repeat(_CHUNK_BYTES))
    runs: list[Run] = []
    blocks: list[Block] = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        position = DATA_START
        with Ahead(partial(_encoded, memory, base), chunks, _SAVING_AHEAD) as pieces:
            for piece in pieces:
                write_all(fd, piece.data, position)
                # The disk works while the next ones are compressed.
                start_writeback(fd, position, len(piece.data))
                position += len(piece.data)
                runs += piece.runs
                blocks += piece.blocks
        contents = Contents(
            made_with=made_with,
            ram_bytes=memory.size,
            based=memory.based,
            against_base=base is not None,
            runs=tuple(runs),
            blocks=tuple(blocks),
            state_checksum=zlib.crc32(state),
        )
        size = write_contents(fd, contents)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    return size


@dataclass(frozen=True, slots=True)
class SavedMemory:
    """A file opened by `opened`, its index verified and its pages not yet."""

    contents: Contents
    _fd: int
    _path: Path

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Read the index. Raises SnapshotUnusable when it is damaged, OSError as usual."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            yield cls(read_contents(fd, path), fd, path)
        finally:
            os.close(fd)

    def verified_state(self, path: Path) -> bytes:
        """The device state that was saved with this. Raises SnapshotUnusable, OSError."""
        state = path.read_bytes()
        if zlib.crc32(state) != self.contents.state_checksum:
            raise damaged(path, "it does not match the checksum kept with the memory")
        return state

    def load(self, write: Callable[[int, memoryview], object], base: Base | None = None) -> None:
        """Hand all pages to `write(offset in RAM, data)`.

        Each is verified before. Raises SnapshotUnusable when one is damaged, what `write`
        raises, and OSError.
        """
        with self.pages(base) as pages:
            for parts in pages:
                for offset, data in parts:
                    write(offset, data)

    def pages(self, base: Base | None) -> Ahead[_Group, list[Part]]:
        """All pages in portions, verified. Some 32 MiB of them are read and decompressed at once,
        before they are asked for. Iterating raises SnapshotUnusable, OSError."""
        if self.contents.against_base and base is None:
            raise SnapshotUnusable(f"{self._path} is good for nothing without its base")
        return Ahead(partial(self._decoded, base), _groups(self.contents), _LOADING_AHEAD)

    def _decoded(self, base: Base | None, group: _Group) -> list[Part]:
        stored = memoryview(os.pread(self._fd, group.stored, group.position))
        if len(stored) < group.stored:
            raise damaged(self._path, "it ends too early")
        below = b""
        if base is not None and self.contents.against_base:
            below = b"".join(base(run.offset, run.length) for run in group.runs)
        content, at, done = [], 0, 0
        for block in group.blocks:
            packed = stored[at : at + block.stored]
            content.append(self._unpacked(block, packed, below[done : done + block.length]))
            at, done = at + block.stored, done + block.length
        return list(_parts(group.runs, b"".join(content)))

    def _unpacked(self, block: Block, packed: memoryview, dictionary: bytes) -> bytes:
        pages = bytes(packed)
        if block.compressed:
            try:
                pages = lz4.block.decompress(pages, uncompressed_size=block.length, dict=dictionary)
            except lz4.block.LZ4BlockError as error:
                raise damaged(self._path, f"a block of it cannot be read: {error}") from error
        if len(pages) != block.length or zlib.crc32(pages) != block.checksum:
            raise damaged(self._path, "its pages do not match their checksum")
        return pages


def materialise(
    snapshot: MachineSnapshot, saved: Path, directory: Path, *, largest_layer: int = 0
) -> MachineSnapshot:
    """A snapshot, in an existing empty directory, of what was saved of a clone of `snapshot`.

    A layer over what `snapshot` stands on when its pages are no more than `largest_layer` bytes:
    each clone gets a copy of them of its own. Otherwise whole. Raises SnapshotUnusable, OSError.
    """
    base = snapshot.base or snapshot.directory
    with SavedMemory.opened(saved / MEMORY_FILE) as changes:
        contents = changes.contents
        state = changes.verified_state(saved / STATE_FILE)
        layered = contents.based and contents.memory_bytes <= largest_layer
        if layered:
            (saved / MEMORY_FILE).rename(directory / MEMORY_FILE)
        else:
            merge(base / RAM_FILE, changes, directory / RAM_FILE)
    write_atomically(directory / STATE_FILE, state, 0o444)
    return dataclasses.replace(
        snapshot,
        directory=directory,
        made_with=contents.made_with,
        base=base if layered else None,
    )


def merge(base: Path, saved: SavedMemory, path: Path, *, durable: bool = True) -> None:
    """Write all that a saved VM had in memory to a new sparse file, fsynced if `durable`.

    `base` is the RAM image that it was a clone of; a VM that was booted has none and it is not
    read. Raises SnapshotUnusable, OSError.
    """
    if saved.contents.based:
        copy_sparse(base, path)
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(target, saved.contents.ram_bytes)
        # No page is read after it was written over: each is in one run alone.
        saved.load(lambda offset, data: write_all(target, data, offset), base_of(target))
        os.fchmod(target, 0o444)
        if durable:
            os.fsync(target)
    finally:
        os.close(target)


class _Encoded(NamedTuple):
    """A part of memory as it is in the file."""

    runs: list[Run]
    blocks: list[Block]
    data: bytes


def _encoded(memory: Source, base: Base | None, spans: list[Run]) -> _Encoded:
    runs, pages, below = [], [], []
    for span in spans:
        content = bytearray(span.length)
        memory.read(span.offset, memoryview(content))
        under = _under(memory, base, span)
        for start, end in _differing(content, under):
            runs.append(Run(span.offset + start, end - start))
            pages.append(content[start:end])
            below.append(under[start:end])
    dictionary = b"".join(below) if base is not None else b""
    blocks, data = _packed(b"".join(pages), dictionary)
    return _Encoded(runs, blocks, data)


def _under(memory: Source, base: Base | None, span: Run) -> bytes:
    """What the pages would be if they were not the VM's own; empty when that is not known."""
    if base is not None:
        return base(span.offset, span.length)
    return b"" if memory.based else bytes(span.length)


def _differing(content: bytearray, under: bytes) -> Iterator[tuple[int, int]]:
    """Where the pages that are not as below begin and end."""
    if content == under:
        return
    begun = None
    for at in range(0, len(content), PAGE):
        if content[at : at + PAGE] != under[at : at + PAGE]:
            begun = at if begun is None else begun
        elif begun is not None:
            yield begun, at
            begun = None
    if begun is not None:
        yield begun, len(content)


def _packed(pages: bytes, below: bytes) -> tuple[list[Block], bytes]:
    blocks, data = [], []
    for at in range(0, len(pages), BLOCK_BYTES):
        part = pages[at : at + BLOCK_BYTES]
        dictionary = below[at : at + BLOCK_BYTES]
        packed = lz4.block.compress(part, store_size=False, dict=dictionary)
        if len(packed) >= len(part):
            packed = part
        blocks.append(Block(len(part), len(packed), zlib.crc32(part)))
        data.append(packed)
    return blocks, b"".join(data)


def _spans(memory: Source, base: Base | None) -> Iterator[Run]:
    """The own pages, together with few between them that a comparison leaves out again."""
    gap = 0 if base is None else _GAP_BYTES
    joined: Run | None = None
    for run in memory.own_runs():
        if joined is not None and run.offset <= joined.offset + joined.length + gap:
            joined = Run(joined.offset, run.offset + run.length - joined.offset)
        else:
            if joined is not None:
                yield joined
            joined = run
    if joined is not None:
        yield joined


class _Group(NamedTuple):
    """Consecutive blocks, where they are in the file, and the runs that they hold."""

    position: int
    stored: int
    blocks: list[Block]
    runs: list[Run]


def _groups(contents: Contents) -> Iterator[_Group]:
    """All blocks in groups, each of which one thread reads."""
    groups = list(_grouped(contents.blocks))
    lengths = (sum(block.length for block in blocks) for blocks in groups)
    position = DATA_START
    for blocks, runs in zip(groups, _portions(contents.runs, lengths), strict=True):
        stored = sum(block.stored for block in blocks)
        yield _Group(position, stored, blocks, runs)
        position += stored


def _grouped(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    waiting = iter(blocks)
    while group := list(itertools.islice(waiting, _CHUNK_BYTES // BLOCK_BYTES)):
        yield group


def _portions(runs: Iterable[Run], lengths: Iterable[int]) -> Iterator[list[Run]]:
    """The runs one after the other, cut into portions of these lengths, until there are none."""
    waiting, left = iter(runs), Run(0, 0)
    for wanted in lengths:
        portion: list[Run] = []
        missing = wanted
        while missing and (left := left if left.length else next(waiting, Run(0, 0))).length:
            length = min(left.length, missing)
            portion.append(Run(left.offset, length))
            left = Run(left.offset + length, left.length - length)
            missing -= length
        if not portion:
            return
        yield portion


def _parts(runs: list[Run], pages: bytes) -> Iterator[Part]:
    whole, at = memoryview(pages), 0
    for run in runs:
        yield run.offset, whole[at : at + run.length]
        at += run.length
