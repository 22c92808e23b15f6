"""What one sandbox holds of its host: a network slot and a machine.

Both are kept here from the moment they are taken, so that whatever goes wrong afterwards, what was
taken is known and given back.
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from emberbox.orchestrator import envd_client
from emberbox.orchestrator.errors import OrchestratorError
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.driver import Surroundings
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.network.policy import EgressPolicy
from emberbox.orchestrator.processes import is_alive, kill_and_wait
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.machines.driver import Driver, Machine
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.outbox import Outbox
    from emberbox.orchestrator.sandboxes.records import RunDirectories, SandboxRecord
    from emberbox.orchestrator.sandboxes.steps import Steps
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
CLONE_READY_SECONDS = 30.0
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
    """What all sandboxes of this host share. `starts` bounds how many start at once."""

    node: str
    uid_base: int
    driver: Driver
    slots: SlotPool
    routes: Routes
    directories: RunDirectories
    outbox: Outbox
    starts: asyncio.Semaphore


@dataclass(slots=True)
class Holdings:
    """Slot and machine of one sandbox, as far as it has them. `note` writes into its story."""

    host: Host
    note: Callable[[str], None]
    slot: Slot | None = None
    machine: Machine | None = None

    async def bring_up(
        self,
        record: SandboxRecord,
        template: Template,
        identity: Identity,
        steps: Steps,
        *,
        cold: bool,
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
            source = template.blank_scratch if cold else template.scratch
            await asyncio.to_thread(copy_sparse, source, directory / SCRATCH_FILE)
        with steps.measure("machine"):
            place = self._surroundings(record, slot)
            machine = await self._start(template, place, cold=cold)
            self.machine = machine
            record = dataclasses.replace(record, process=machine.identity)
            self.host.directories.save(record)
        with steps.measure("init"):
            seconds = BOOT_READY_SECONDS if cold else CLONE_READY_SECONDS
            answer = envd_client.initialize(slot, identity, seconds)
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
        if self.slot is not None:
            slot, self.slot = self.slot, None
            await self._attempt("give back its slot", self.host.slots.release(slot))

    async def detach(self) -> None:
        """Let the machine live on without this process."""
        if self.machine is not None:
            await self.machine.detach()

    async def _start(self, template: Template, place: Surroundings, *, cold: bool) -> Machine:
        if cold:
            self.note("booted cold")
            return await self.host.driver.boot(template.hardware, template.boot, place)
        self.note(f"cloned from the snapshot of build {template.build_id}")
        return await self.host.driver.restore(template.snapshot, place)

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


def machine_name(node: str, sandbox_id: str) -> str:
    """The VMM's name in the process list, by which strays of a crash are found."""
    return f"emberbox-{node}-{sandbox_id}"
