"""Which pages of a private mapping of a file are a process's own: those that it has written.

By the PAGEMAP_SCAN call where the kernel has it (Linux 6.7), whose cost grows with the pages found.
Otherwise the page map is read, which costs 10 µs for each MiB of the mapping.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from array import array

from emberbox.orchestrator.machines.pages import PAGE, Run

# linux/fs.h: size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
# category_mask, category_anyof_mask, return_mask
_SCAN_ARGUMENT = struct.Struct("=12Q")
_PAGEMAP_SCAN = 0xC0606610
_IS_FILE, _IS_PRESENT, _IS_SWAPPED = 1 << 2, 1 << 3, 1 << 4
_REGION_NUMBERS = 3
_REGIONS = 1024
_NO_SCAN = {errno.ENOTTY, errno.EINVAL}

# The highest byte of an entry of /proc/PID/pagemap, proc(5).
_ENTRY_BYTES = 8
_PRESENT, _SWAPPED, _FILE = 0x80, 0x40, 0x20
_IS_OWN = bytes(bool(flags & (_PRESENT | _SWAPPED)) and not flags & _FILE for flags in range(256))
_OWN_RUN = re.compile(rb"\x01+")


def own_runs(pagemap: int, address: int, size: int) -> list[Run]:
    """The process's own pages of a mapping, in order; swapped ones are own pages too.

    `pagemap` is its /proc/PID/pagemap. The process must stand still. Raises OSError; EOFError
    when it has ended.
    """
    try:
        return scanned(pagemap, address, size)
    except OSError as error:
        if error.errno not in _NO_SCAN:
            raise
    return read(pagemap, address, size)


def scanned(pagemap: int, address: int, size: int) -> list[Run]:
    """By PAGEMAP_SCAN. Raises OSError, ENOTTY where the kernel has it not."""
    regions = array("Q", bytes(_REGIONS * _REGION_NUMBERS * 8))
    runs: list[Run] = []
    start, end = address, address + size
    while True:
        argument = bytearray(
            _SCAN_ARGUMENT.pack(
                *(_SCAN_ARGUMENT.size, 0, start, end, 0, regions.buffer_info()[0], _REGIONS, 0),
                *(_IS_FILE, _IS_FILE, _IS_PRESENT | _IS_SWAPPED, _IS_FILE),
            )
        )
        found = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, argument) * _REGION_NUMBERS
        firsts, ends = regions[0:found:_REGION_NUMBERS], regions[1:found:_REGION_NUMBERS]
        runs += [Run(a - address, b - a) for a, b in zip(firsts, ends, strict=True)]
        if len(ends) < _REGIONS:
            return runs
        # Not at the argument's walk_end: it can lie before regions that were told already.
        start = ends[-1]


def read(pagemap: int, address: int, size: int) -> list[Run]:
    """By reading the page map. Raises EOFError when the process has ended."""
    wanted = size // PAGE * _ENTRY_BYTES
    entries = os.pread(pagemap, wanted, address // PAGE * _ENTRY_BYTES)
    if len(entries) < wanted:
        raise EOFError("the process has ended")
    own = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_IS_OWN)
    return [
        Run(found.start() * PAGE, (found.end() - found.start()) * PAGE)
        for found in _OWN_RUN.finditer(own)
    ]
