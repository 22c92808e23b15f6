"""Copying a running sandbox, which stands still meanwhile and then goes on."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator import failpoints, metrics, threads
from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE
from emberbox.orchestrator.sandboxes.suspending import let_run, sync_guest
from emberbox.orchestrator.templates.store import SCRATCH_FILE as TEMPLATE_SCRATCH
from emberbox.orchestrator.templates.store import TemplateSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import Machine, Saved
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.templates.store import Template

_SAVED = "saved"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The build that a copy is to become."""

    template_id: str
    build_id: str
    files_only: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A copy: a build's work directory with the disk and, in `saved`, the memory over `base`."""

    spec: TemplateSpec
    work: Path
    wanted: Wanted
    record: SandboxRecord
    base: Template
    saved: Saved | None

    @property
    def memory(self) -> Path:
        """What the driver saved."""
        return self.work / _SAVED

    def abandon(self) -> None:
        """Remove it."""
        shutil.rmtree(self.work, ignore_errors=True)


@dataclass(slots=True)
class Copying:
    """One attempt to copy a running sandbox. `note` writes into its story."""

    host: Host
    record: SandboxRecord
    machine: Machine
    slot: Slot
    note: Callable[[str], None]
    _saved: Saved | None = None
    _shared: bool = False

    async def run(self, wanted: Wanted) -> Draft:
        """The copy; the machine runs again, also after an error.

        Raises AdmissionRefused, MachineError or OSError; nothing is left then.
        """
        with metrics.operation("checkpoint"):
            return await self._make(wanted)

    async def _make(self, wanted: Wanted) -> Draft:
        ids = self.record.template_id, self.record.build_id
        base = await asyncio.to_thread(self.host.builds.get, *ids)
        if base is None:
            raise MachineError(f"its template build {self.record.build_id} is not on this host")
        self._require_room(wanted)
        await sync_guest(self.slot, self.note)
        record = self.record
        hardware = Hardware(record.vcpu, record.ram_mb)
        spec = TemplateSpec(wanted.template_id, (), hardware, record.disk_mb)
        work = await asyncio.to_thread(self.host.builds.begin, spec, wanted.build_id)
        try:
            async with self.host.saves:
                saved = await self._copy(work, wanted)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        return Draft(spec, work, wanted, record, base, saved)

    def _require_room(self, wanted: Wanted) -> None:
        room = self.host.pause_room(self.record, self.machine, files_only=wanted.files_only)
        memory = 0 if wanted.files_only else self.record.ram_mb
        disk = self._scratch.stat().st_blocks >> 11
        admission.check_pause(
            admission.PauseRoom(room.available_mb, room.wanted_mb + memory + disk, room.reserve_mb)
        )

    async def _copy(self, work: Path, wanted: Wanted) -> Saved | None:
        began = time.perf_counter()
        try:
            await self.machine.pause()
            failpoints.reach("copy-stopped")
            copies = [self._copy_disk(work / TEMPLATE_SCRATCH)]
            if not wanted.files_only:
                copies.append(self._save_memory(work / _SAVED))
            await threads.all_to_end(*copies)
            failpoints.reach("copy-made")
        finally:
            await let_run(self.machine, self.note)
        milliseconds = (time.perf_counter() - began) * 1000
        how = "sharing its disk's blocks" if self._shared else "copying its disk"
        self.note(f"copied as build {wanted.build_id} in {milliseconds:.0f} ms, {how}")
        return self._saved

    async def _save_memory(self, directory: Path) -> None:
        await asyncio.to_thread(directory.mkdir, 0o700)
        self._saved = await self.machine.save(directory)

    async def _copy_disk(self, target: Path) -> None:
        self._shared = await threads.run_to_end(lambda: copy_sparse(self._scratch, target))

    @property
    def _scratch(self) -> Path:
        return self.host.directories.path(self.record.sandbox_id) / SCRATCH_FILE
