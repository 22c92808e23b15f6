"""A process whose memory is mapped as that of a QEMU is, and that does with it what it is told."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from emberbox.orchestrator.machines.pages import PAGE
from emberbox.orchestrator.machines.qemu.ram import RAM_NAME
from emberbox.orchestrator.processes import identify

if TYPE_CHECKING:
    from types import TracebackType

PAGES = 64
SIZE = PAGES * PAGE

_PROGRAM = """
import hashlib, mmap, sys
fd, size, sharing = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
flags = {"private": mmap.MAP_PRIVATE, "shared": mmap.MAP_SHARED}
areas = [mmap.mmap(fd, size, flags=flags[name]) for name in sharing.split(",") if name]
print("ready", flush=True)
for line in sys.stdin:
    verb, *numbers = line.split()
    if verb == "write":
        at, value = map(int, numbers)
        areas[0][at] = value
        print("done", flush=True)
    elif verb == "read":
        print(areas[0][int(numbers[0])], flush=True)
    else:
        print(hashlib.sha256(areas[0]).hexdigest(), flush=True)
"""


def ram_file(content: bytes = b"") -> int:
    """A memory file by the name that guest memory has; the caller closes it."""
    fd = os.memfd_create(RAM_NAME)
    os.ftruncate(fd, SIZE)
    os.pwrite(fd, content, 0)
    return fd


class StandInVmm:
    """`sharing`: how it maps the file, "private" or "shared", with commas for more mappings."""

    def __init__(self, ram: int, sharing: str = "private") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(ram), str(SIZE), sharing],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[ram],
            text=True,
        )
        assert self._answer() == "ready"
        self.identity = identify(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def write(self, page: int, value: int) -> None:
        """Change the first byte of a page."""
        assert self._ask(f"write {page * PAGE} {value}") == "done"

    def read(self, page: int) -> int:
        """The first byte of a page."""
        return int(self._ask(f"read {page * PAGE}"))

    def digest(self) -> str:
        """Of all its memory, as it sees it."""
        return self._ask("digest")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def digest(content: bytes) -> str:
    """As `StandInVmm.digest` tells it."""
    return hashlib.sha256(content).hexdigest()
