"""The file of a paused VM's memory: what it consists of, and how it is written down.

    header   64 bytes, see `_HEADER`
    blocks   the pages, in groups, each compressed or, where that gains nothing, as it is
    index    what the VM was started with, as UTF-8 text; (first page, number of pages) of every
             run, in ascending order; (number of pages, bytes in the file, checksum of the pages)
             of every block

Numbers are little-endian, as on every host that runs these VMs; those of the index have 32 bits.
The blocks hold the pages of all runs one after the other. Header and index have a checksum, as
has the device state in the file beside. The base is the snapshot that the VM was cloned from, or
nothing (memory that is all zero) for a VM that was booted. A file is cumulative: base and file
together are the whole memory.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from emberbox.orchestrator.errors import SnapshotUnusable
from emberbox.orchestrator.machines.pages import PAGE, Run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BLOCK_BYTES = 32 << 10
"""The most that one block holds. With as much of the base for a dictionary it is half of what LZ4
looks back on."""

_MAGIC = b"EMBERMEM"
_VERSION = 2
_HEADER = struct.Struct("<8sIIQIIIIQII8x")
"""Magic, version, page size, RAM size, base, length of the text, runs, blocks, where the index
begins, checksums: of header and index (as if it were 0 itself), of the device state."""

_NO_BASE, _BASED, _AGAINST_BASE = 0, 1, 2
_NUMBER = "I"
_RUN_BYTES, _BLOCK_ENTRY_BYTES = 8, 12

DATA_START = _HEADER.size


class Block(NamedTuple):
    """Consecutive pages of the runs: their bytes in memory and in the file, their CRC-32."""

    length: int
    stored: int
    checksum: int

    @property
    def compressed(self) -> bool:
        """Whether it is not as it was in memory."""
        return self.stored < self.length


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file says of itself.

    based:        the pages lie over those of a snapshot
    against_base: blocks are compressed with that snapshot's pages for a dictionary
    """

    made_with: str
    ram_bytes: int
    based: bool
    against_base: bool
    runs: tuple[Run, ...]
    blocks: tuple[Block, ...]
    state_checksum: int

    @property
    def memory_bytes(self) -> int:
        """How much memory the file holds."""
        return sum(run.length for run in self.runs)

    @property
    def index_start(self) -> int:
        """Where the blocks end."""
        return DATA_START + sum(block.stored for block in self.blocks)

    def encoded(self) -> tuple[bytes, bytes]:
        """Header and index."""
        text = self.made_with.encode()
        numbers = array(_NUMBER, (n for run in self.runs for n in _in_pages(run)))
        numbers.extend(n for block in self.blocks for n in block)
        index = text + numbers.tobytes()
        checksum = zlib.crc32(index, zlib.crc32(self._header(len(text), 0)))
        return self._header(len(text), checksum), index

    def _header(self, text: int, checksum: int) -> bytes:
        base = _NO_BASE
        if self.based:
            base = _AGAINST_BASE if self.against_base else _BASED
        return _HEADER.pack(
            *(_MAGIC, _VERSION, PAGE, self.ram_bytes, base),
            *(text, len(self.runs), len(self.blocks), self.index_start),
            *(checksum, self.state_checksum),
        )


def write_contents(fd: int, contents: Contents) -> int:
    """Put header and index around the blocks that were written; the size of the file.

    Raises OSError.
    """
    header, index = contents.encoded()
    write_all(fd, index, contents.index_start)
    write_all(fd, header, 0)
    return contents.index_start + len(index)


def read_contents(fd: int, path: Path) -> Contents:
    """Header and index, verified. Raises SnapshotUnusable, OSError."""
    head = os.pread(fd, _HEADER.size, 0)
    if len(head) < _HEADER.size:
        raise damaged(path, "it has no whole header")
    magic, version, page, ram, base, text, runs, blocks, start, _, state = _HEADER.unpack(head)
    if (magic, version, page) != (_MAGIC, _VERSION, PAGE):
        raise SnapshotUnusable(f"{path} is no saved memory of version {_VERSION} for this host")
    length = text + runs * _RUN_BYTES + blocks * _BLOCK_ENTRY_BYTES
    if start + length != os.fstat(fd).st_size:
        raise damaged(path, "it is longer or shorter than its header says")
    index = os.pread(fd, length, start)
    numbers = array(_NUMBER, index[text:])
    contents = Contents(
        made_with=index[:text].decode(errors="replace"),
        ram_bytes=ram,
        based=base != _NO_BASE,
        against_base=base == _AGAINST_BASE,
        runs=_runs(numbers[: 2 * runs]),
        blocks=_blocks(numbers[2 * runs :]),
        state_checksum=state,
    )
    # Encoding computes the checksum anew.
    if contents.encoded() != (head, index) or not _fits_together(contents):
        raise damaged(path, "its index does not match its checksum")
    return contents


def damaged(path: Path, how: str) -> SnapshotUnusable:
    """The error that says so."""
    return SnapshotUnusable(f"{path} is damaged: {how}")


def write_all(fd: int, data: bytes | memoryview, position: int) -> None:
    """Write all of `data` into a file. Raises OSError."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, position)
        rest, position = rest[written:], position + written


def _in_pages(run: Run) -> tuple[int, int]:
    return run.offset // PAGE, run.length // PAGE


def _runs(numbers: array[int]) -> tuple[Run, ...]:
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(Run(first * PAGE, count * PAGE) for first, count in pairs)


def _blocks(numbers: array[int]) -> tuple[Block, ...]:
    return tuple(map(Block, numbers[::3], numbers[1::3], numbers[2::3]))


def _fits_together(contents: Contents) -> bool:
    lengths = (block.length for block in contents.blocks)
    return (
        _in_order(contents.runs, contents.ram_bytes)
        and all(_is_possible(block) for block in contents.blocks)
        and sum(lengths) == contents.memory_bytes
    )


def _in_order(runs: Iterable[Run], ram_bytes: int) -> bool:
    end = 0
    for run in runs:
        if run.offset < end or run.length <= 0:
            return False
        end = run.offset + run.length
    return end <= ram_bytes


def _is_possible(block: Block) -> bool:
    whole = block.length % PAGE == 0 and 0 < block.length <= BLOCK_BYTES
    return whole and 0 < block.stored <= block.length
