"""Writing a running sandbox to disk. Until the commit any failure lets it run on.

check the room │ guest sync, a draft is begun │ stop the vCPUs │ save the memory, take the disk
│ COMMIT: manifest, one rename
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import envd_calls, envd_client, failpoints, threads
from emberbox.orchestrator.errors import (
    GuestUnhealthy,
    GuestUnreachable,
    MachineError,
    OrchestratorError,
)
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE
from emberbox.orchestrator.sandboxes.steps import OperationSteps
from emberbox.orchestrator.snapshots.manifest import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.machines.driver import Machine, Saved
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.lifecycle import Suspend
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.snapshots.store import Draft
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)

SYNC_SECONDS = 5.0
"""How long a guest may take to write out its disks."""

HEALTH_SECONDS = 5.0
"""How long a guest may take to answer that is to be paused only when it does."""


@dataclass(slots=True)
class Suspension:
    """One attempt to make the snapshot of a running sandbox. `note` writes into its story."""

    host: Host
    record: SandboxRecord
    machine: Machine
    slot: Slot
    note: Callable[[str], None]
    committed: bool = False
    steps: OperationSteps = field(default_factory=lambda: OperationSteps("pause"))
    _saved: Saved | None = None
    _disk_bytes: int = 0

    async def run(self, wanted: Suspend) -> Snapshot:
        """Write and commit the snapshot; the machine stands still then.

        Raises GuestUnhealthy, AdmissionRefused, MachineError or OSError; the machine runs on then.
        """
        with self.steps.whole():
            return await self._save(wanted)

    async def _save(self, wanted: Suspend) -> Snapshot:
        failpoints.reach("pause-begun")
        if wanted.require_healthy:
            await self._require_healthy()
        build = await self._build()
        admission.check_pause(
            self.host.pause_room(self.record, self.machine, files_only=wanted.files_only)
        )
        beginning = asyncio.to_thread(self.host.snapshots.begin, self.record.sandbox_id)
        draft, _ = await asyncio.gather(beginning, self._sync())
        failpoints.reach("pause-synced")
        try:
            async with self.host.saves:
                return await self._write(draft, build, files_only=wanted.files_only)
        except BaseException:
            await self._undo(draft)
            raise

    async def _require_healthy(self) -> None:
        try:
            await envd_client.wait_healthy(self.slot, HEALTH_SECONDS)
        except GuestUnreachable as error:
            raise GuestUnhealthy(str(error)) from error

    async def _build(self) -> Template:
        ids = self.record.template_id, self.record.build_id
        build = await asyncio.to_thread(self.host.builds.get, *ids)
        if build is None:
            raise MachineError(f"its template build {self.record.build_id} is not on this host")
        return build

    async def _sync(self) -> None:
        with self.steps.measure("sync"):
            await sync_guest(self.slot, self.note)

    async def _write(self, draft: Draft, build: Template, *, files_only: bool) -> Snapshot:
        with self.steps.measure("stop"):
            await self.machine.pause()
        failpoints.reach("pause-stopped")
        if files_only:
            await self._take_disk(draft)
        else:
            await threads.all_to_end(self._save_memory(draft), self._take_disk(draft))
        with self.steps.measure("commit"):
            # To its end: a rename that comes after the machine was let run would be fatal.
            snapshot = await threads.run_to_end(lambda: self._commit(draft, build))
        self.steps.reached("saved")
        self._tell(snapshot)
        return snapshot

    async def _save_memory(self, draft: Draft) -> None:
        with self.steps.measure("memory"):
            self._saved = await self.machine.save(draft.memory)
        failpoints.reach("pause-saved")

    async def _take_disk(self, draft: Draft) -> None:
        scratch = self.host.directories.path(self.record.sandbox_id) / SCRATCH_FILE
        with self.steps.measure("disk"):
            self._disk_bytes = await threads.run_to_end(
                lambda: self.host.snapshots.take_disk(draft, scratch)
            )
        failpoints.reach("pause-linked")

    def _tell(self, snapshot: Snapshot) -> None:
        steps = {name: round(milliseconds, 1) for name, milliseconds in self.steps.taken}
        size = snapshot.memory_bytes >> 10
        self.note(f"saved with {size} KiB of memory, in ms: {steps}")
        _log.info("saved", sandbox_id=snapshot.sandbox_id, memory_kib=size, steps=steps)

    def _commit(self, draft: Draft, build: Template) -> Snapshot:
        snapshot = self._describe(build)
        self.host.snapshots.commit(draft, snapshot)
        self.committed = True
        failpoints.reach("pause-committed")
        return snapshot

    def _describe(self, build: Template) -> Snapshot:
        record, report, saved = self.record, self.host.driver.report, self._saved
        return Snapshot(
            sandbox_id=record.sandbox_id,
            execution_id=record.execution_id,
            template_id=record.template_id,
            build_id=record.build_id,
            vcpu=record.vcpu,
            ram_mb=record.ram_mb,
            disk_mb=record.disk_mb,
            driver=report.name,
            accelerator=report.accelerator,
            made_with=saved.made_with if saved else "",
            images=build.manifest.images,
            envd_version=record.envd_version,
            egress=record.egress,
            paused_at=time.time(),
            memory=saved is not None,
            based=not record.booted,
            memory_bytes=saved.memory_bytes + saved.state_bytes if saved else 0,
            disk_bytes=self._disk_bytes,
            traffic_token=record.traffic_token,
            envd_token=record.envd_token,
            env_vars=record.env_vars,
            metadata=record.metadata,
        )

    async def _undo(self, draft: Draft) -> None:
        if self.committed:
            return  # cancelled a moment too late: the next orchestrator finds it paused
        await asyncio.to_thread(self.host.snapshots.abandon, draft)
        await let_run(self.machine, self.note)


async def sync_guest(slot: Slot, note: Callable[[str], None]) -> None:
    """Have the guest write out its disks; one that hangs is noted and not waited for."""
    try:
        await envd_calls.sync(slot, SYNC_SECONDS)
    except GuestUnreachable as error:
        note(f"its disks are saved as they are: {error}")


async def let_run(machine: Machine, note: Callable[[str], None]) -> None:
    """Let the vCPUs run, as they may already. A machine that cannot is for its watch to notice."""
    try:
        await machine.resume()
    except (OrchestratorError, OSError) as error:
        note(f"could not let it run: {error}")
