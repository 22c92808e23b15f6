"""The Firecracker driver."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from emberbox.orchestrator import threads
from emberbox.orchestrator.errors import MachineError, SnapshotUnusable
from emberbox.orchestrator.machines.firecracker import calls, jail, mounting, view
from emberbox.orchestrator.machines.firecracker.facts import Facts
from emberbox.orchestrator.machines.firecracker.kernels import extracted
from emberbox.orchestrator.machines.firecracker.machine import FirecrackerMachine
from emberbox.orchestrator.machines.firecracker.mounting import Bind
from emberbox.orchestrator.machines.firecracker.view import View
from emberbox.orchestrator.machines.made_with import require_same
from emberbox.orchestrator.machines.restoring import run_loaded
from emberbox.orchestrator.machines.saved_memory import (
    MEMORY_FILE,
    RAM_FILE,
    STATE_FILE,
    SavedMemory,
    materialise,
    merge,
)
from emberbox.orchestrator.machines.spawn import Confinement, spawn
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.network.addresses import NETNS_DIRECTORY

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import (
        BeforeRunning,
        BootFiles,
        DriverReport,
        Hardware,
        MachineSnapshot,
        Surroundings,
    )
    from emberbox.orchestrator.machines.firecracker.installation import Installation
    from emberbox.orchestrator.processes import ProcessIdentity


class FirecrackerDriver:
    """Starts VMs with Firecracker. `kernels` is a directory for those that are extracted."""

    def __init__(
        self,
        installation: Installation,
        report: DriverReport,
        kernels: Path,
        rates: calls.Rates | None = None,
    ) -> None:
        self._installation = installation
        self._report = report
        self._kernels = kernels
        self._rates = rates or calls.Rates()

    @property
    def report(self) -> DriverReport:
        """What probing found."""
        return self._report

    @property
    def made_with(self) -> str:
        """Version, format of snapshots, CPU, host kernel and configuration.

        Size is left to the snapshot's own hardware.
        """
        return self._installation.made_with

    async def boot(
        self, hardware: Hardware, files: BootFiles, place: Surroundings
    ) -> FirecrackerMachine:
        """Start the kernel."""
        View.of(place).forget_memory()
        kernel = await threads.run_to_end(partial(extracted, files.kernel, self._kernels))
        seen = {
            view.KERNEL: kernel,
            view.INITRD: files.initrd,
            **_disks(files, place),
        }
        facts = self._facts(hardware, place, loaded=False, based=False)
        machine = await self._start(hardware, place, seen, facts)
        try:
            await unless_ended(machine, self._configure_and_start(machine, hardware))
        except BaseException:
            await machine.stop()
            raise
        return machine

    async def restore(
        self,
        snapshot: MachineSnapshot,
        place: Surroundings,
        saved: Path | None = None,
        before_running: BeforeRunning | None = None,
    ) -> FirecrackerMachine:
        """Start a clone: the snapshot's RAM is mapped privately, or a copy of it that what was
        saved is written over."""
        ram, facts = await threads.run_to_end(partial(self._provide_ram, snapshot, place, saved))
        seen = {
            view.RAM: ram,
            view.STATE: (saved or snapshot.directory) / STATE_FILE,
            **_disks(snapshot.boot, place),
        }
        machine = await self._start(snapshot.hardware, place, seen, facts)
        await run_loaded(machine, self._load(machine), before_running)
        return machine

    async def materialise(
        self, snapshot: MachineSnapshot, saved: Path, directory: Path, *, layered: bool = False
    ) -> MachineSnapshot:
        """Write the snapshot's RAM with what was saved over it, and the device state beside.

        Never a layer: a clone maps one file, and the clones of a whole image share it.
        """
        del layered
        return await threads.run_to_end(partial(materialise, snapshot, saved, directory))

    async def adopt(self, identity: ProcessIdentity, place: Surroundings) -> FirecrackerMachine:
        """Reconnect to a Firecracker that another orchestrator process started."""
        machine = self._machine(identity, place, Facts.read(place.directory))
        try:
            await machine.connect()
        except BaseException:
            await machine.detach()
            raise
        return machine

    def forget(self, snapshot: MachineSnapshot) -> None:
        """Nothing is kept: clones map the snapshot's own file."""

    def _provide_ram(
        self, snapshot: MachineSnapshot, place: Surroundings, saved: Path | None
    ) -> tuple[Path, Facts]:
        """The file that is mapped, and what its machine is.

        Raises SnapshotUnusable, OSError.
        """
        own, base = View.of(place), snapshot.directory / RAM_FILE
        own.forget_memory()
        if saved is None:
            require_same(snapshot.made_with, self.made_with)
            own.keep(view.BASE, base)
            return base, self._facts(snapshot.hardware, place, loaded=True, based=True)
        with SavedMemory.opened(saved / MEMORY_FILE) as changes:
            contents = changes.contents
            require_same(contents.made_with, self.made_with)
            changes.verified_state(saved / STATE_FILE)
            if contents.ram_bytes != snapshot.hardware.ram_mb << 20:
                raise SnapshotUnusable(
                    f"{contents.ram_bytes} bytes of memory were saved;"
                    f" this VM has {snapshot.hardware.ram_mb} MiB"
                )
            merge(base, changes, place.directory / view.LOADED, durable=False)
        if contents.based:
            own.keep(view.BASE, base)
        own.keep(view.LAYER, saved / MEMORY_FILE)
        facts = self._facts(snapshot.hardware, place, loaded=True, based=contents.based)
        saved_mb = contents.memory_bytes >> 20
        return place.directory / view.LOADED, dataclasses.replace(facts, saved_mb=saved_mb)

    def _facts(
        self, hardware: Hardware, place: Surroundings, *, loaded: bool, based: bool
    ) -> Facts:
        version = str(self._installation.version)
        return Facts(self.made_with, version, hardware.ram_mb, loaded, based)

    async def _configure_and_start(self, machine: FirecrackerMachine, hardware: Hardware) -> None:
        await machine.put_all([*calls.reporting(), *calls.configuration(hardware), calls.START])
        await machine.limit(self._rates)

    async def _load(self, machine: FirecrackerMachine) -> None:
        await machine.put_all(calls.reporting())
        await machine.load(calls.load(self._installation.version))
        await machine.limit(self._rates)
        await asyncio.to_thread(machine.track)

    async def _start(
        self, hardware: Hardware, place: Surroundings, seen: dict[str, Path], facts: Facts
    ) -> FirecrackerMachine:
        """A Firecracker that waits to be told, with what it sees around it."""
        identity = await self._spawn(hardware, place, seen, facts)
        machine = self._machine(identity, place, facts)
        try:
            await unless_ended(machine, machine.connect())
        except BaseException:
            await machine.stop()
            raise
        return machine

    async def _spawn(
        self, hardware: Hardware, place: Surroundings, seen: dict[str, Path], facts: Facts
    ) -> ProcessIdentity:
        programs = self._installation.programs
        binds, last = await threads.run_to_end(partial(self._lay_out, place, seen, facts))
        largest = jail.largest_file(hardware.ram_mb, place.scratch.stat().st_size)
        confinement = Confinement(
            # The jailer is root until it has made the jail.
            uid=0 if programs.jailer else place.uid,
            groups=(),
            netns=place.slot.netns_path,
            output=View.of(place).console,
            prepare=partial(mounting.enter_own, NETNS_DIRECTORY, binds, last),
            share=place.share,
        )
        try:
            return await spawn(jail.argv(programs, place, largest), (), confinement)
        except OSError as error:
            raise MachineError(f"{programs.firecracker} cannot be started: {error}") from error

    def _lay_out(
        self, place: Surroundings, seen: dict[str, Path], facts: Facts
    ) -> tuple[list[Bind], Bind]:
        """The files of the view, and the mounts that make it. Raises OSError."""
        own = View.of(place)
        own.make(place.scratch)
        facts.write(place.directory)
        binds = own.bound(seen)
        root = jail.root_of(self._installation.programs, own, place.name)
        if root is None:
            binds += own.devices()
            view.SEEN_AT.mkdir(parents=True, exist_ok=True)
        seen_at = (root / view.SEEN_AT.relative_to("/")) if root else view.SEEN_AT
        return binds, Bind(own.host, seen_at)

    def _machine(
        self, identity: ProcessIdentity, place: Surroundings, facts: Facts
    ) -> FirecrackerMachine:
        return FirecrackerMachine(identity, View.of(place), facts)


def _disks(files: BootFiles, place: Surroundings) -> dict[str, Path]:
    return {view.ROOT: files.root, view.RUNTIME: files.runtime, view.SCRATCH: place.scratch}
