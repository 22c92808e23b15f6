"""Guest memory seen from outside its VMM: where it is mapped, what of it is the VM's own.

A clone maps its template's RAM privately, so every page that it has written is an anonymous page
of its QEMU: the kernel's page map says which, and /proc/PID/mem reads and writes them. QEMU has
no part in this and no guest page passes through it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from emberbox.orchestrator.errors import MachineError, MachineGone
from emberbox.orchestrator.images.disks import data_extents
from emberbox.orchestrator.machines.pages import PAGE, Run
from emberbox.orchestrator.machines.qemu.page_map import own_runs
from emberbox.orchestrator.machines.qemu.ram import RAM_NAME
from emberbox.orchestrator.processes import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emberbox.orchestrator.processes import ProcessIdentity

_LINK_NAME = f"/memfd:{RAM_NAME} (deleted)"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where guest memory lies in its VMM. `shared`: it is a memory file of this VM alone."""

    address: int
    size: int
    shared: bool


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """The memory of one VM, which must stand still. Made by `opened`. For threads."""

    mapping: Mapping
    _identity: ProcessIdentity
    _memory: int

    @property
    def size(self) -> int:
        """Bytes of guest memory."""
        return self.mapping.size

    @property
    def based(self) -> bool:
        """Whether it is a clone's: what is not its own is its base's."""
        return not self.mapping.shared

    def own_runs(self) -> list[Run]:
        """What this VM has written, in order; of shared memory all that was ever touched.

        Takes in pages that were written back to what they had been. Raises MachineGone.
        """
        if self.mapping.shared:
            with self.file() as ram:
                return [
                    Run(start, end - start) for start, end in data_extents(ram, self.mapping.size)
                ]
        pagemap = _open_proc(self._identity, "pagemap", os.O_RDONLY)
        try:
            runs = own_runs(pagemap, self.mapping.address, self.mapping.size)
        except (OSError, EOFError) as error:
            raise MachineGone(f"QEMU's page map cannot be read any more: {error}") from error
        finally:
            os.close(pagemap)
        # The memory of a process that ended meanwhile has no pages: that is no clone that wrote
        # none. What can be read now was there all the time.
        self.read(0, memoryview(bytearray(1)))
        return runs

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` from guest memory. Raises MachineError."""
        self._copy(os.preadv, [into], offset, len(into))

    def write(self, offset: int, data: memoryview) -> None:
        """Put `data` into guest memory. Raises MachineError."""
        self._copy(os.pwritev, [data], offset, len(data))

    @contextlib.contextmanager
    def file(self) -> Iterator[int]:
        """The memory file that is mapped, open for reading: of a VM that was booted its own, of a
        clone its base. Raises MachineGone."""
        fd = _open_ram_file(self._identity)
        try:
            yield fd
        finally:
            os.close(fd)

    def _copy(
        self,
        copy: Callable[[int, list[memoryview], int], int],
        data: list[memoryview],
        offset: int,
        wanted: int,
    ) -> None:
        try:
            copied = copy(self._memory, data, self.mapping.address + offset)
        except OSError as error:
            raise MachineError(f"QEMU's memory cannot be copied: {error}") from error
        if copied < wanted:
            raise MachineGone("QEMU ended while its memory was copied")


@contextlib.contextmanager
def opened(identity: ProcessIdentity) -> Iterator[GuestMemory]:
    """The guest memory of a QEMU. Raises MachineGone, or MachineError when it is not as it was
    mapped: a VMM that somebody has taken over can map what it likes."""
    memory = _open_proc(identity, "mem", os.O_RDWR)
    try:
        mapping = _mapping(_areas(identity))
        yield GuestMemory(mapping, identity, memory)
    finally:
        os.close(memory)


def _open_proc(identity: ProcessIdentity, name: str, flags: int) -> int:
    """A file of the process in /proc. It stays with that very process."""
    try:
        fd = os.open(f"/proc/{identity.pid}/{name}", flags | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise MachineGone("QEMU has ended") from error
    if not is_alive(identity):
        os.close(fd)
        raise MachineGone("QEMU has ended")
    return fd


class _Area(NamedTuple):
    """One line of /proc/PID/maps."""

    start: int
    end: int
    offset: int
    shared: bool


def _areas(identity: ProcessIdentity) -> list[_Area]:
    with open(_open_proc(identity, "maps", os.O_RDONLY)) as maps:
        lines = [line.split() for line in maps if line.rstrip().endswith(_LINK_NAME)]
    return [_area(*line[:3]) for line in lines]


def _area(ends: str, rights: str, offset: str) -> _Area:
    start, _, end = ends.partition("-")
    return _Area(int(start, 16), int(end, 16), int(offset, 16), rights[3] == "s")


def _mapping(areas: list[_Area]) -> Mapping:
    if not areas:
        raise MachineError("QEMU has not mapped its guest's memory")
    base, shared, mapped = areas[0].start, areas[0].shared, 0
    # The kernel may show one mapping as several neighbours.
    for area in areas:
        if (area.start, area.offset, area.shared) != (base + mapped, mapped, shared):
            raise MachineError("QEMU's mapping of its guest's memory is not in one piece")
        mapped += area.end - area.start
    if mapped > PAGE * os.sysconf("SC_PHYS_PAGES"):
        raise MachineError("QEMU has mapped more guest memory than this host has")
    return Mapping(base, mapped, shared)


def _open_ram_file(identity: ProcessIdentity) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{identity.pid}/fd").iterdir():
            if _target(link) == _LINK_NAME:
                return _open_proc(identity, f"fd/{link.name}", os.O_RDONLY)
    raise MachineGone("QEMU has ended: its guest's memory file is closed")


def _target(link: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return str(link.readlink())
    return ""
