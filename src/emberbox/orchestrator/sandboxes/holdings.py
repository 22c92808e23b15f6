"""What one sandbox holds of its host: a network slot and a machine.

Both are kept here from the moment they are taken, so that whatever goes wrong afterwards, what was
taken is known and given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from emberbox.orchestrator import envd_calls, envd_client, failpoints
from emberbox.orchestrator.errors import MachineError, OrchestratorError, SnapshotUnusable
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.driver import Hardware, Surroundings
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.processes import is_alive, kill_and_wait
from emberbox.orchestrator.sandboxes.admission import PauseRoom, disk_available_mb
from emberbox.orchestrator.sandboxes.beginning import booted_from_files
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE
from emberbox.orchestrator.sandboxes.share import Share, Shares
from emberbox.orchestrator.snapshots.of_run import SnapshotsOfRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.machines.driver import Driver, Machine
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.outbox import Outbox
    from emberbox.orchestrator.sandboxes.beginning import Beginning, WarmClone
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
    shares:           what each VM may take
    saves:            bounds how many are written to disk at once; until it is its turn one runs on
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
    saves: asyncio.Semaphore
    shares: Shares = field(default_factory=Shares)
    pause_reserve_mb: int = 0

    def pause_room(self, record: SandboxRecord, machine: Machine, *, files_only: bool) -> PauseRoom:
        """The disk as a pause of this sandbox would find it. Raises OSError."""
        wanted = 0 if files_only else machine.most_saved_mb(record.ram_mb)
        available = disk_available_mb(self.directories.root)
        return PauseRoom(available, wanted, self.pause_reserve_mb)


@dataclass(slots=True)
class Holdings:
    """Slot and machine of one sandbox, as far as it has them. `note` writes into its story.

    ahead: it is made before anybody waits for it, and gives way to those that somebody waits for
    """

    host: Host
    note: Callable[[str], None]
    ahead: bool = False
    slot: Slot | None = None
    share: Share = field(default_factory=Share)
    machine: Machine | None = None
    _continued: bool = False

    async def bring_up(
        self, record: SandboxRecord, beginning: Beginning, steps: Steps
    ) -> SandboxRecord:
        """Take a slot, start the machine, make it this sandbox; the record that says so.

        Raises OrchestratorError or OSError; what was taken until then stays here.
        """
        with steps.measure("slot"):
            slot = await self.host.slots.acquire(record.egress)
        self.slot = slot
        record = dataclasses.replace(record, slot=slot.index)
        with steps.measure("share"):
            self.share = self.host.shares.of(slot.index, Hardware(record.vcpu, record.ram_mb))
        with steps.measure("disk"):
            directory = self.host.directories.create(record)
            await asyncio.to_thread(self._provide_disk, beginning, directory / SCRATCH_FILE)
        with steps.measure("machine"):
            record = await self._start(record, beginning, self._surroundings(record, slot))
        steps.reached("running")
        failpoints.reach("resume-continued")
        with steps.measure("init"):
            identity = beginning.identity
            if not self._continued:  # also when its memory could not be loaded
                identity = dataclasses.replace(identity, env_vars=record.env_vars)
            record = await self.introduce(record, identity, beginning.present_token)
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
            self.share, given.share = given.share, Share()
            self.machine, given.machine = given.machine, None
            slot, machine = self.both()
            record = dataclasses.replace(record, slot=slot.index, process=machine.identity)
            machine.moved(self.host.directories.take_over(clone.directory, record))
            self.share.come_forward(machine.identity)
            failpoints.reach("claim-moved")
        self.note(f"made of the warm clone {clone.directory.name}")
        with steps.measure("init"):
            record = await self.introduce(record, identity, "", CLAIM_READY_SECONDS)
            failpoints.reach("claim-initialized")
        with steps.measure("egress"):
            await self.host.slots.set_policy(slot, record.egress)
        return record

    def hurry(self) -> None:
        """Somebody waits for it from now on, though it is not theirs yet."""
        self.ahead = False
        if self.machine is not None:
            # Who takes it over does this again, and can give back what it holds when it fails.
            with contextlib.suppress(OSError):
                self.share.come_forward(self.machine.identity)

    def both(self) -> tuple[Slot, Machine]:
        """Slot and machine. Raises MachineError when one is not held."""
        if self.slot is None or self.machine is None:
            raise MachineError("the sandbox holds no machine")
        return self.slot, self.machine

    async def introduce(
        self,
        record: SandboxRecord,
        identity: Identity,
        present_token: str,
        seconds: float | None = None,
    ) -> SandboxRecord:
        """Tell the machine who it is, within `seconds` or what its kind may take; the record with
        what it answers.

        Raises GuestUnreachable, or MachineError when the machine ends meanwhile.
        """
        slot, machine = self.both()
        if self._continued:
            tell = envd_calls.resume
        else:
            # While it boots nobody takes datagrams.
            tell = envd_client.initialize if record.booted else envd_calls.initialize
        answer = tell(slot, identity, seconds or self._ready_seconds(record), present_token)
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
            self.slot = await self.host.slots.adopt(record.slot, record.egress)
            self.share = self.host.shares.of(record.slot, Hardware(record.vcpu, record.ram_mb))
            self.share.add(process.pid)
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
        share, self.share = self.share, Share()
        await self._attempt("remove its control group", share.remove())
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
        self.host.snapshots.give_disk(beginning.snapshot.sandbox_id, scratch)
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
        saved = await asyncio.to_thread(self.host.snapshots.memory, snapshot.sandbox_id)
        await self.host.driver.restore(template.snapshot, place, saved, take)
        self._continued = True
        return held

    async def _hold(self, record: SandboxRecord, machine: Machine) -> SandboxRecord:
        """Written down at once: a machine that no record names is ended at the next start."""
        self.machine = machine
        if self.ahead:
            self.share.give_way(machine.identity)
        record = dataclasses.replace(record, process=machine.identity)
        self.host.directories.save(record)
        return record

    async def _take_snapshot(self, record: SandboxRecord) -> None:
        if not record.resumed:
            return
        ids = record.sandbox_id, record.execution_id
        await SnapshotsOfRun(self.host.snapshots, *ids).take()
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

    def _ready_seconds(self, record: SandboxRecord) -> float:
        if record.booted or self.ahead:
            return BOOT_READY_SECONDS
        return RESUME_READY_SECONDS if record.resumed else CLONE_READY_SECONDS

    def _surroundings(self, record: SandboxRecord, slot: Slot) -> Surroundings:
        directory = self.host.directories.path(record.sandbox_id)
        return Surroundings(
            name=machine_name(self.host.node, record.sandbox_id),
            directory=directory,
            slot=slot,
            uid=self.host.uid_base + slot.index,
            scratch=directory / SCRATCH_FILE,
            share=self.share,
        )


def machine_name(node: str, sandbox_id: str) -> str:
    """The VMM's name in the process list, by which strays of a crash are found."""
    return f"emberbox-{node}-{sandbox_id}"
