"""The QEMU driver."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from emberbox.orchestrator import threads
from emberbox.orchestrator.errors import MachineError, MachineGone, SnapshotUnusable
from emberbox.orchestrator.images.clock import software_clock_options
from emberbox.orchestrator.machines.descriptors import opened
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.machines.kvm import kvm_groups
from emberbox.orchestrator.machines.made_with import require_same
from emberbox.orchestrator.machines.qemu import monitor as qmp
from emberbox.orchestrator.machines.qemu.command import Command, Disk, Kernel, Memory, shape
from emberbox.orchestrator.machines.qemu.machine import (
    MADE_WITH_FILE,
    OUTPUT_FILE,
    QemuMachine,
    connect,
)
from emberbox.orchestrator.machines.qemu.ram import load_sealed, new_ram
from emberbox.orchestrator.machines.restoring import run_loaded
from emberbox.orchestrator.machines.saved_memory import (
    MEMORY_FILE,
    RAM_FILE,
    STATE_FILE,
    SavedMemory,
    base_of,
    materialise,
)
from emberbox.orchestrator.machines.spawn import Confinement, spawn
from emberbox.orchestrator.network.tap import open_tap
from emberbox.orchestrator.processes import kill_and_wait

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import (
        BeforeRunning,
        BootFiles,
        DriverReport,
        MachineSnapshot,
        Surroundings,
    )
    from emberbox.orchestrator.machines.saved_memory import Pages
    from emberbox.orchestrator.processes import ProcessIdentity


_LARGEST_LAYER = 64 << 20
"""Bytes of pages that each clone of a layered snapshot gets for itself, and loads when it starts.
More are written into an image of the whole RAM, whose clones share them."""


class QemuDriver:
    """Starts VMs with the distribution's QEMU."""

    def __init__(self, binary: str, report: DriverReport) -> None:
        self._binary = binary
        self._report = report
        self._images = RamImages()

    @property
    def report(self) -> DriverReport:
        """What probing found."""
        return self._report

    @property
    def made_with(self) -> str:
        """Version, accelerator and command line: a snapshot loads only under the same.

        Size is left to the snapshot's own hardware.
        """
        report = self._report
        return f"{report.version}: {shape(report.accelerator, Hardware(vcpu=1, ram_mb=1))}"

    async def boot(self, hardware: Hardware, files: BootFiles, place: Surroundings) -> QemuMachine:
        """Start the kernel. Its RAM is a shared memory file, from which a snapshot can be taken."""
        ram = new_ram(hardware.ram_mb)
        try:
            with contextlib.ExitStack() as stack:
                kernel = Kernel(
                    stack.enter_context(opened(files.kernel)),
                    stack.enter_context(opened(files.initrd)),
                    await asyncio.to_thread(self._clock_options),
                )
                memory = Memory(ram, share=True)
                identity = await self._spawn(hardware, files, place, memory, kernel)
        finally:
            os.close(ram)
        monitor = await _connect_or_kill(identity, place.directory)
        return QemuMachine(identity, monitor, place.directory)

    async def restore(
        self,
        snapshot: MachineSnapshot,
        place: Surroundings,
        saved: Path | None = None,
        before_running: BeforeRunning | None = None,
    ) -> QemuMachine:
        """Start a clone: the snapshot's RAM is mapped privately, what was saved is written over
        it, and the device state loaded."""
        with contextlib.ExitStack() as stack:
            loading = await self._loading(stack, snapshot, saved)
            machine = await self._start(snapshot, place, loading.memory)
            await run_loaded(machine, machine.load(loading.state, loading.pages), before_running)
        return machine

    async def _loading(
        self, stack: contextlib.ExitStack, snapshot: MachineSnapshot, saved: Path | None
    ) -> _Loading:
        """What a machine is loaded with, open until the stack closes."""
        base = snapshot.base or snapshot.directory
        if saved is None and snapshot.base is not None:
            saved = snapshot.directory
        if saved is None:
            require_same(snapshot.made_with, self.made_with)
            ram = await self._images.get(base / RAM_FILE)
            stack.callback(os.close, ram)
            return _Loading(Memory(ram, share=False), snapshot.directory / STATE_FILE, None)
        changes = await threads.run_to_end(partial(_opened_and_verified, stack, saved))
        require_same(changes.contents.made_with, self.made_with)
        based, size = changes.contents.based, changes.contents.ram_bytes
        if size != snapshot.hardware.ram_mb << 20:
            raise SnapshotUnusable(
                f"{size} bytes of memory were saved; this VM has {snapshot.hardware.ram_mb} MiB"
            )
        if based:
            ram = await self._images.get(base / RAM_FILE)
        else:
            ram = new_ram(snapshot.hardware.ram_mb)
        stack.callback(os.close, ram)
        # They are read and decompressed while the VMM starts.
        pages = stack.enter_context(changes.pages(base_of(ram) if based else None))
        return _Loading(Memory(ram, share=not based), saved / STATE_FILE, pages)

    async def materialise(
        self, snapshot: MachineSnapshot, saved: Path, directory: Path, *, layered: bool = False
    ) -> MachineSnapshot:
        """Keep what was saved as a layer, or write the RAM below with it over; the device state
        beside."""
        largest = _LARGEST_LAYER if layered else 0
        work = partial(materialise, snapshot, saved, directory, largest_layer=largest)
        return await threads.run_to_end(work)

    async def adopt(self, identity: ProcessIdentity, place: Surroundings) -> QemuMachine:
        """Reconnect to a QEMU that another orchestrator process started."""
        monitor = await connect(identity, place.directory)
        return QemuMachine(identity, monitor, place.directory)

    def forget(self, snapshot: MachineSnapshot) -> None:
        """Close the RAM image of a snapshot; clones that live have it open themselves."""
        self._images.forget(snapshot.directory / RAM_FILE)

    def _clock_options(self) -> str:
        return software_clock_options() if self._report.accelerator == "tcg" else ""

    async def _start(
        self, snapshot: MachineSnapshot, place: Surroundings, memory: Memory
    ) -> QemuMachine:
        """A QEMU that waits to be loaded, on the base of what it will be."""
        identity = await self._spawn(snapshot.hardware, snapshot.boot, place, memory, None)
        monitor = await _connect_or_kill(identity, place.directory)
        return QemuMachine(identity, monitor, place.directory)

    async def _spawn(
        self,
        hardware: Hardware,
        files: BootFiles,
        place: Surroundings,
        memory: Memory,
        kernel: Kernel | None,
    ) -> ProcessIdentity:
        (place.directory / MADE_WITH_FILE).write_text(self.made_with)
        with contextlib.ExitStack() as stack:
            # Not in a thread: a descriptor that comes after a cancellation would be nobody's.
            tap = open_tap(place.slot)
            stack.callback(os.close, tap)
            listener = stack.enter_context(qmp.listen(place.directory))
            command = Command(
                name=place.name,
                accelerator=self._report.accelerator,
                hardware=hardware,
                memory=memory,
                monitor_fd=listener.fileno(),
                tap_fd=tap,
                disks=(
                    Disk("root", stack.enter_context(opened(files.root)), read_only=True),
                    Disk("runtime", stack.enter_context(opened(files.runtime)), read_only=True),
                    Disk(
                        "scratch",
                        stack.enter_context(opened(place.scratch, os.O_RDWR)),
                        read_only=False,
                    ),
                ),
                kernel=kernel,
            )
            confinement = Confinement(
                uid=place.uid,
                groups=kvm_groups() if self._report.accelerator == "kvm" else (),
                netns=place.slot.netns_path,
                output=place.directory / OUTPUT_FILE,
                share=place.share,
            )
            try:
                return await spawn(command.argv(self._binary), command.descriptors, confinement)
            except OSError as error:
                raise MachineError(f"{self._binary} cannot be started: {error}") from error


@dataclass(frozen=True, slots=True)
class _Loading:
    """What a machine stands on and what it is loaded with."""

    memory: Memory
    state: Path
    pages: Pages | None


class RamImages:
    """The RAM images that clones share, loaded once for as long as they are in use.

    Each takes memory of the host as long as it is kept here: those used last are, `limit` of them.
    """

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._descriptors: dict[Path, int] = {}  # the one used last is the last
        self._lock = asyncio.Lock()

    async def get(self, path: Path) -> int:
        """A descriptor of the sealed memory file, which the caller closes.

        The one kept here may be forgotten at any moment. Raises MachineError when the image
        cannot be read.
        """
        async with self._lock:
            if path not in self._descriptors:
                try:
                    self._descriptors[path] = await asyncio.to_thread(load_sealed, path)
                except OSError as error:
                    raise MachineError(f"the RAM image {path} cannot be read: {error}") from error
                if len(self._descriptors) > self._limit:
                    self.forget(next(iter(self._descriptors)))
            self._descriptors[path] = self._descriptors.pop(path)
            return os.dup(self._descriptors[path])

    def forget(self, path: Path) -> None:
        """Close one."""
        fd = self._descriptors.pop(path, None)
        if fd is not None:
            os.close(fd)


async def _connect_or_kill(identity: ProcessIdentity, directory: Path) -> qmp.Monitor:
    try:
        return await connect(identity, directory)
    except MachineGone as error:
        await kill_and_wait(identity)
        with contextlib.suppress(OSError):
            error.console = (directory / OUTPUT_FILE).read_text(errors="replace")
        raise
    except BaseException:
        await kill_and_wait(identity)
        raise


def _opened_and_verified(stack: contextlib.ExitStack, saved: Path) -> SavedMemory:
    changes = stack.enter_context(SavedMemory.opened(saved / MEMORY_FILE))
    changes.verified_state(saved / STATE_FILE)
    return changes
