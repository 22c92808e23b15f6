"""What one sandbox holds of its host: a network slot and a machine.

Both are kept here from the moment they are taken, so that whatever goes wrong afterwards, what was
taken is known and given back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from emberbox.orchestrator import envd_client, failpoints, priority, threads
from emberbox.orchestrator.errors import MachineError, OrchestratorError, SnapshotUnusable
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.driver import Hardware, Surroundings
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.network.policy import EgressPolicy
from emberbox.orchestrator.processes import is_alive, kill_and_wait
from emberbox.orchestrator.sandboxes.admission import (
    PauseRoom,
    disk_available_mb,
    resident_mb,
)
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.machines.driver import Driver, Machine
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.outbox import Outbox
    from emberbox.orchestrator.processes import ProcessIdentity
    from emberbox.orchestrator.sandboxes.records import RunDirectories, SandboxRecord
    from emberbox.orchestrator.sandboxes.starts import StartQueue
    from emberbox.orchestrator.snapshots.manifest import Snapshot
    from emberbox.orchestrator.snapshots.store import SnapshotStore
    from emberbox.orchestrator.templates.store import Template, TemplateStore
    from emberbox.shared.steps import Steps

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
CLONE_READY_SECONDS = 30.0
CLAIM_READY_SECONDS = 5.0
RESUME_READY_SECONDS = 60.0
BOOT_READY_SECONDS = 120.0
"""How long envd may take to answer. Software emulation on a busy host is slow."""


class Routes(Protocol):
    """The data proxy's table, as a sandbox sees it."""

    async def open(self, record: SandboxRecord, address: str) -> None:
        """Let traffic in; returns when the workers know."""

    async def close(self, record: SandboxRecord) -> None:
        """Stop traffic and reset its connections; returns when the workers have."""


@dataclass(frozen=True, slots=True)
class Host:
    """What all sandboxes of this host share.

    starts:           who may start next
    pause_reserve_mb: what a pause leaves free on the disk
    """

    node: str
    uid_base: int
    driver: Driver
    slots: SlotPool
    routes: Routes
    directories: RunDirectories
    outbox: Outbox
    snapshots: SnapshotStore
    builds: TemplateStore
    starts: StartQueue
    pause_reserve_mb: int = 0

    def pause_room(
        self, record: SandboxRecord, process: ProcessIdentity, *, files_only: bool
    ) -> PauseRoom:
        """The disk as a pause of this sandbox would find it. Raises OSError."""
        wanted = 0 if files_only else min(record.ram_mb, resident_mb(process.pid))
        available = disk_available_mb(self.directories.root)
        return PauseRoom(available, wanted, self.pause_reserve_mb)


class WarmClone(Protocol):
    """A clone of the template that runs already and is nobody's yet, as its new owner sees it."""

    @property
    def directory(self) -> Path:
        """Its run directory, called as it is in the pool."""

    async def handed_over(self) -> Holdings:
        """What it holds, when it is warm; from now on that is the caller's to give back.

        Raises OrchestratorError or OSError when it failed; then nothing is the caller's.
        """

    def discard(self) -> None:
        """Remove what is left of its directory; for threads."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a sandbox starts from.

    cold:     boot from files, the template's or the snapshot's
    snapshot: of the paused sandbox that is continued
    clone:    a warm one, to be made this sandbox
    """

    template: Template
    identity: Identity
    cold: bool = False
    snapshot: Snapshot | None = None
    clone: WarmClone | None = None

    @property
    def present_token(self) -> str:
        """What envd has for a token in the memory that is loaded, before it is told another."""
        if self.cold:
            return ""
        source = self.snapshot or self.template.manifest
        return source.envd_token or ""


@dataclass(slots=True)
class Holdings:
    """Slot and machine of one sandbox, as far as it has them. `note` writes into its story.

    ahead: it is made before anybody waits for it, and gives way to those that somebody waits for
    """

    host: Host
    note: Callable[[str], None]
    ahead: bool = False
    slot: Slot | None = None
    machine: Machine | None = None

    async def bring_up(
        self, record: SandboxRecord, beginning: Beginning, steps: Steps
    ) -> SandboxRecord:
        """Take a slot, start the machine, make it this sandbox; the record that says so.

        Raises OrchestratorError or OSError; what was taken until then stays here.
        """
        with steps.measure("slot"):
            slot = await self.host.slots.acquire(EgressPolicy(internet=record.internet))
        self.slot = slot
        record = dataclasses.replace(record, slot=slot.index)
        with steps.measure("disk"):
            directory = self.host.directories.create(record)
            await asyncio.to_thread(self._provide_disk, beginning, directory / SCRATCH_FILE)
        with steps.measure("machine"):
            record = await self._start(record, beginning, self._surroundings(record, slot))
        failpoints.reach("resume-continued")
        with steps.measure("init"):
            seconds = CLONE_READY_SECONDS if beginning.snapshot is None else RESUME_READY_SECONDS
            record = await self.introduce(
                record, beginning.identity, beginning.present_token, seconds
            )
        failpoints.reach("resume-initialized")
        return record

    async def take_over(
        self, record: SandboxRecord, clone: WarmClone, identity: Identity, steps: Steps
    ) -> SandboxRecord:
        """Make a warm clone this sandbox; the record that says so.

        It has no way out before it has its identity. Raises OrchestratorError or OSError; what was
        taken until then stays here.
        """
        with steps.measure("claim"):
            given = await clone.handed_over()
            self.slot, given.slot = given.slot, None
            self.machine, given.machine = given.machine, None
            slot, machine = self.both()
            record = dataclasses.replace(record, slot=slot.index, process=machine.identity)
            machine.moved(self.host.directories.take_over(clone.directory, record))
            priority.raise_again(machine.identity)
        self.note(f"made of the warm clone {clone.directory.name}")
        with steps.measure("init"):
            record = await self.introduce(record, identity, "", CLAIM_READY_SECONDS)
        with steps.measure("egress"):
            await self.host.slots.set_policy(slot, EgressPolicy(internet=record.internet))
        return record

    def both(self) -> tuple[Slot, Machine]:
        """Slot and machine. Raises MachineError when one is not held."""
        if self.slot is None or self.machine is None:
            raise MachineError("the sandbox holds no machine")
        return self.slot, self.machine

    async def introduce(
        self, record: SandboxRecord, identity: Identity, present_token: str, seconds: float
    ) -> SandboxRecord:
        """Tell the machine who it is; the record with what it answers. A boot has its own time.

        Raises GuestUnreachable, or MachineError when the machine ends meanwhile.
        """
        slot, machine = self.both()
        limit = BOOT_READY_SECONDS if record.booted or self.ahead else seconds
        answer = envd_client.initialize(slot, identity, limit, present_token)
        version = await unless_ended(machine, answer)
        return dataclasses.replace(record, envd_version=version)

    async def take_again(self, record: SandboxRecord) -> None:
        """Take hold of the machine of a record, if it lives and all that it needs is there.

        Otherwise what is left of it is ended, and nothing is held. Raises nothing of ours.
        """
        process = record.process
        if process is None or not is_alive(process):
            return
        try:
            self.slot = await self.host.slots.adopt(record.slot)
            place = self._surroundings(record, self.slot)
            self.machine = await self.host.driver.adopt(process, place)
        except (OrchestratorError, OSError, ValueError) as error:
            self.note(f"its VM lives and cannot be adopted: {error}")
            await kill_and_wait(process)

    async def give_back(self) -> None:
        """End the machine, then give back the slot.

        Never the slot of a machine that lives: its uid would go to another VM with it.
        """
        if self.machine is not None:
            await self._stop(self.machine)
            self.machine = None
            failpoints.reach("pause-ended")
        if self.slot is not None:
            slot, self.slot = self.slot, None
            await self._attempt("give back its slot", self.host.slots.release(slot))

    async def detach(self) -> None:
        """Let the machine live on without this process."""
        if self.machine is not None:
            await self.machine.detach()

    def _provide_disk(self, beginning: Beginning, scratch: Path) -> None:
        if beginning.snapshot is None:
            template = beginning.template
            copy_sparse(template.boot_scratch if beginning.cold else template.scratch, scratch)
            return
        failpoints.reach("resume-begun")
        os.link(self.host.snapshots.place(beginning.snapshot.sandbox_id).scratch, scratch)
        failpoints.reach("resume-linked")

    async def _start(
        self, record: SandboxRecord, beginning: Beginning, place: Surroundings
    ) -> SandboxRecord:
        template, snapshot = beginning.template, beginning.snapshot
        if snapshot is not None and not beginning.cold:
            try:
                return await self._continue(record, template, snapshot, place)
            except SnapshotUnusable as error:
                record = dataclasses.replace(record, notice=booted_from_files(str(error)))
        elif not beginning.cold:
            self.note(f"cloned from the snapshot of build {template.build_id}")
            machine = await self.host.driver.restore(template.snapshot, place)
            return await self._hold(record, machine)
        self.note(record.notice or "booted cold")
        await self._take_snapshot(record)
        hardware = Hardware(record.vcpu, record.ram_mb)
        machine = await self.host.driver.boot(hardware, template.boot, place)
        return await self._hold(dataclasses.replace(record, booted=True), machine)

    async def _continue(
        self, record: SandboxRecord, template: Template, snapshot: Snapshot, place: Surroundings
    ) -> SandboxRecord:
        """Load the memory of the snapshot; it is taken in the last moment before it runs."""
        held = dataclasses.replace(record, booted=not snapshot.based)

        async def take(machine: Machine) -> None:
            nonlocal held
            failpoints.reach("resume-loaded")
            held = await self._hold(held, machine)
            failpoints.reach("resume-recorded")
            await self._take_snapshot(held)

        self.note(f"continued from the memory of execution {snapshot.execution_id}")
        saved = self.host.snapshots.place(snapshot.sandbox_id).memory
        await self.host.driver.restore(template.snapshot, place, saved, take)
        return held

    async def _hold(self, record: SandboxRecord, machine: Machine) -> SandboxRecord:
        """Written down at once: a machine that no record names is ended at the next start."""
        self.machine = machine
        if self.ahead:
            priority.lower(machine.identity)
        record = dataclasses.replace(record, process=machine.identity)
        self.host.directories.save(record)
        return record

    async def _take_snapshot(self, record: SandboxRecord) -> None:
        if not record.resumed:
            return
        ids = record.sandbox_id, record.execution_id
        try:
            await threads.run_to_end(lambda: self.host.snapshots.consume(*ids))
        except asyncio.CancelledError:
            await asyncio.to_thread(self.host.snapshots.put_back, *ids)
            raise
        failpoints.reach("resume-consumed")

    async def _stop(self, machine: Machine) -> None:
        while True:
            if await self._attempt("stop its VM", machine.stop()):
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _attempt(self, what: str, work: Awaitable[None]) -> bool:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be given back
            self.note(f"could not {what}: {error}")
            _log.exception("reclaiming failed", step=what)
            return False
        return True

    def _surroundings(self, record: SandboxRecord, slot: Slot) -> Surroundings:
        directory = self.host.directories.path(record.sandbox_id)
        return Surroundings(
            name=machine_name(self.host.node, record.sandbox_id),
            directory=directory,
            slot=slot,
            uid=self.host.uid_base + slot.index,
            scratch=directory / SCRATCH_FILE,
        )


def booted_from_files(reason: str) -> str:
    """What a caller is told whose sandbox could not go on where it was."""
    return f"it was booted from its files, all processes are new: {reason}"


def machine_name(node: str, sandbox_id: str) -> str:
    """The VMM's name in the process list, by which strays of a crash are found."""
    return f"emberbox-{node}-{sandbox_id}"
