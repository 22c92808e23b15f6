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

_PORTION_BYTES = 2 << 20
"""What one thread does at a time."""
_SAVING_AHEAD, _LOADING_AHEAD = 4, 16
_MOST_UNTRIED = 16
"""Blocks that are not even tried to be compressed."""

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
    portions = _portions(memory.own_runs(), itertools.repeat(_PORTION_BYTES))
    runs: list[Run] = []
    blocks: list[Block] = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        position = DATA_START
        with Ahead(partial(_encoded, memory, base), portions, _SAVING_AHEAD) as pieces:
            for piece in pieces:
                begun = position
                for data in piece.data:
                    write_all(fd, data, position)
                    position += len(data)
                # The disk works while the next ones are compressed.
                start_writeback(fd, begun, position - begun)
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
        below = memoryview(b"")
        if base is not None and self.contents.against_base and group.compressed:
            below = memoryview(b"".join(base(run.offset, run.length) for run in group.runs))
        pages, at, done = [], 0, 0
        for block in group.blocks:
            packed = stored[at : at + block.stored]
            pages.append(self._unpacked(block, packed, below[done : done + block.length]))
            at, done = at + block.stored, done + block.length
        whole = memoryview(b"".join(pages)) if group.compressed else stored
        return list(_parts(group.runs, whole))

    def _unpacked(self, block: Block, packed: memoryview, dictionary: memoryview) -> memoryview:
        pages = packed
        if block.compressed:
            pages = memoryview(self._decompressed(block, packed, dictionary))
        if len(pages) != block.length or zlib.crc32(pages) != block.checksum:
            raise damaged(self._path, "its pages do not match their checksum")
        return pages

    def _decompressed(self, block: Block, packed: memoryview, dictionary: memoryview) -> bytes:
        try:
            pages: bytes = lz4.block.decompress(
                packed, uncompressed_size=block.length, dict=dictionary
            )
        except lz4.block.LZ4BlockError as error:
            raise damaged(self._path, f"a block of it cannot be read: {error}") from error
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
    data: list[bytes | memoryview]


def _encoded(memory: Source, base: Base | None, portion: list[Run]) -> _Encoded:
    content = bytearray(sum(run.length for run in portion))
    for offset, part in _parts(portion, memoryview(content)):
        memory.read(offset, part)
    under = b""
    if base is not None:
        under = b"".join(base(run.offset, run.length) for run in portion)
    elif not memory.based:
        under = bytes(len(content))
    kept = _differing(content, under)
    below = _pages(memoryview(under), kept) if base is not None else memoryview(b"")
    blocks, data = _packed(_pages(memoryview(content), kept), below)
    return _Encoded(_runs(portion, kept), blocks, data)


def _differing(content: bytearray, under: bytes) -> list[int]:
    """The pages that are not as below: where they begin. All, when that is not known."""
    return [
        at
        for at in range(0, len(content), PAGE)
        if not under.startswith(content[at : at + PAGE], at)
    ]


def _pages(content: memoryview, kept: list[int]) -> memoryview:
    if len(kept) * PAGE == len(content):
        return content
    return memoryview(b"".join(content[at : at + PAGE] for at in kept))


def _runs(portion: list[Run], kept: list[int]) -> list[Run]:
    """The runs of the kept pages, of which `kept` says where they are in the portion."""
    offsets = [at for run in portion for at in range(run.offset, run.offset + run.length, PAGE)]
    runs: list[Run] = []
    for offset in (offsets[at // PAGE] for at in kept):
        if runs and runs[-1].offset + runs[-1].length == offset:
            runs[-1] = Run(runs[-1].offset, runs[-1].length + PAGE)
        else:
            runs.append(Run(offset, PAGE))
    return runs


def _packed(pages: memoryview, below: memoryview) -> tuple[list[Block], list[bytes | memoryview]]:
    blocks: list[Block] = []
    data: list[bytes | memoryview] = []
    step = wait = 0
    for at in range(0, len(pages), BLOCK_BYTES):
        part = pages[at : at + BLOCK_BYTES]
        packed: bytes | memoryview = part
        # Behind what does not get smaller more of its kind is likely: not every block is tried.
        if wait := max(0, wait - 1):
            pass
        elif len(smaller := _compressed(part, below[at : at + BLOCK_BYTES])) < len(part):
            packed, step = smaller, 0
        else:
            step = min(2 * step + 2, _MOST_UNTRIED)
            wait = step
        blocks.append(Block(len(part), len(packed), zlib.crc32(part)))
        data.append(packed)
    return blocks, data


def _compressed(part: memoryview, dictionary: memoryview) -> bytes:
    packed: bytes = lz4.block.compress(part, store_size=False, dict=dictionary)
    return packed


class _Group(NamedTuple):
    """Consecutive blocks, where they are in the file, and the runs that they hold."""

    position: int
    stored: int
    blocks: list[Block]
    runs: list[Run]

    @property
    def compressed(self) -> bool:
        """Whether any of them is not as it was in memory."""
        return any(block.compressed for block in self.blocks)


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
    while group := list(itertools.islice(waiting, _PORTION_BYTES // BLOCK_BYTES)):
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


def _parts(runs: list[Run], pages: memoryview) -> Iterator[Part]:
    at = 0
    for run in runs:
        yield run.offset, pages[at : at + run.length]
        at += run.length
