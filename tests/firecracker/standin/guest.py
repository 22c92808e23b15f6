"""The memory of a guest that is not there, and what a test does in its place."""

from __future__ import annotations

import mmap
import os
from typing import Any

PAGE = mmap.PAGESIZE


class Memory:
    """Guest memory, with the log of dirty pages that KVM keeps when it is told to.

    Loaded from a file it is a private mapping, as with the File backend.
    """

    def __init__(self, size: int, fd: int | None = None, *, tracked: bool = False) -> None:
        self.size = size
        self._tracked = tracked
        self._dirty: set[int] = set()
        flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if fd is None else 0)
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        self._map = mmap.mmap(-1 if fd is None else fd, size, flags=flags, prot=protection)

    def write(self, page: int, value: int) -> None:
        """Fill a page."""
        self._map[page * PAGE : (page + 1) * PAGE] = bytes([value]) * PAGE
        self._dirty.add(page)

    def read(self, page: int) -> int:
        """The value that a page is filled with."""
        content = self._map[page * PAGE : (page + 1) * PAGE]
        assert content == content[:1] * PAGE, f"page {page} is torn"
        return content[0]

    def dump(self, path: str, *, changes: bool) -> None:
        """Write all of it, or into a file of holes what changed; a new log begins, also after an
        error, as with the least careful of VMMs."""
        pages = sorted(self._dirty) if changes and self._tracked else range(self.size // PAGE)
        self._dirty = set()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.ftruncate(fd, self.size)
            for page in pages:
                os.pwrite(fd, self._map[page * PAGE : (page + 1) * PAGE], page * PAGE)
        finally:
            os.close(fd)

    @property
    def tracked(self) -> bool:
        """Whether it logs dirty pages."""
        return self._tracked


def act(memory: Memory, order: dict[str, Any]) -> object:
    """Do in the guest what a test asks for."""
    match order:
        case {"write": [page, value]}:
            memory.write(page, value)
        case {"fill": pages}:
            for page, value in pages:
                memory.write(page, value)
        case {"read": page}:
            return memory.read(page)
        case {"read_all": _}:
            return [memory.read(page) for page in range(memory.size // PAGE)]
        case _:
            raise ValueError(f"no such order: {order}")
    return None
