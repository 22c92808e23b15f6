"""One sandbox: the shell that carries out what its lifecycle decides."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from emberbox.orchestrator import envd_client
from emberbox.orchestrator.errors import MachineError, OrchestratorError
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.driver import Hardware, Surroundings
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.network.policy import EgressPolicy
from emberbox.orchestrator.sandboxes.lifecycle import (
    EndRequested,
    Event,
    Forget,
    Instruction,
    Lifecycle,
    MachineGone,
    Outcome,
    Reclaim,
    Reclaimed,
    Record,
    Report,
    Started,
    StartFailed,
    State,
)
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE, SandboxRecord
from emberbox.orchestrator.sandboxes.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.machines.driver import Driver, Machine
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.outbox import Outbox
    from emberbox.orchestrator.sandboxes.records import RunDirectories
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)

CLONE_READY_SECONDS = 30.0
BOOT_READY_SECONDS = 120.0


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


class Sandbox:
    """One run of one sandbox on this host."""

    def __init__(self, host: Host, record: SandboxRecord) -> None:
        self.record = record
        self.steps = Steps()
        self._host = host
        self._life = Lifecycle(record.sandbox_id, time.time)
        self._machine: Machine | None = None
        self._slot: Slot | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._on_ended: Callable[[], object] = lambda: None

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._life.state

    @property
    def hardware(self) -> Hardware:
        """Its size."""
        return Hardware(self.record.vcpu, self.record.ram_mb)

    @property
    def slot_index(self) -> int | None:
        """Its network slot, while it has one."""
        return self._slot.index if self._slot else None

    def story(self) -> list[str]:
        """Its events, oldest first, each with its time."""
        return [f"{_clock(at)} {text}" for at, text in self._life.story]

    # Starting

    def begin(self, template: Template, identity: Identity, *, cold: bool) -> None:
        """Start in the background: a caller that goes away does not break it off half-way."""
        self._spawn(self._start(template, identity, cold=cold))

    async def settled(self) -> None:
        """Return when it runs. Raises what its start failed with."""
        await asyncio.shield(self._settled)

    async def _start(self, template: Template, identity: Identity, *, cold: bool) -> None:
        try:
            with self.steps.measure("queue"):
                await self._host.starts.acquire()
            try:
                await self._bring_up(template, identity, cold=cold)
            finally:
                self._host.starts.release()
        except (OrchestratorError, OSError) as error:
            reason = error.explain() if isinstance(error, MachineError) else str(error)
            _log.warning("start failed", sandbox_id=self.record.sandbox_id, reason=reason)
            self._feed(StartFailed(reason))
            await self._ended.wait()
            self._settle(error)
        except Exception as error:  # noqa: BLE001 - reclaimed, and told to whoever asked
            _log.exception("start failed", sandbox_id=self.record.sandbox_id)
            self._feed(StartFailed(repr(error)))
            await self._ended.wait()
            self._settle(error)
        else:
            self._feed(Started())
            self._settle(None if self.state is State.RUNNING else _killed_while_starting())

    async def _bring_up(self, template: Template, identity: Identity, *, cold: bool) -> None:
        with self.steps.measure("slot"):
            slot = await self._host.slots.acquire(EgressPolicy(internet=self.record.internet))
        self._slot = slot
        with self.steps.measure("disk"):
            self.record = dataclasses.replace(self.record, slot=slot.index)
            directory = self._host.directories.create(self.record)
            scratch = template.blank_scratch if cold else template.scratch
            await asyncio.to_thread(copy_sparse, scratch, directory / SCRATCH_FILE)
        with self.steps.measure("machine"):
            place = self._surroundings(slot, directory)
            machine = await self._start_machine(template, place, cold=cold)
            self._machine = machine
            self._save(dataclasses.replace(self.record, process=machine.identity))
        with self.steps.measure("init"):
            await self._initialize(machine, slot, identity, cold=cold)
        with self.steps.measure("route"):
            await self._open(machine, slot)

    async def _start_machine(
        self, template: Template, place: Surroundings, *, cold: bool
    ) -> Machine:
        if cold:
            return await self._host.driver.boot(template.hardware, template.boot, place)
        return await self._host.driver.restore(template.snapshot, place)

    async def _initialize(
        self, machine: Machine, slot: Slot, identity: Identity, *, cold: bool
    ) -> None:
        seconds = BOOT_READY_SECONDS if cold else CLONE_READY_SECONDS
        answer = envd_client.initialize(slot, identity, seconds)
        version = await unless_ended(machine, answer)
        self.record = dataclasses.replace(self.record, envd_version=version)

    async def _open(self, machine: Machine, slot: Slot) -> None:
        self._save(dataclasses.replace(self.record, running=True))
        await self._host.routes.open(self.record, slot.address)
        self._watch(machine)

    # Taking hold again after a restart of the orchestrator

    async def adopt(self) -> None:
        """Take hold of what the record says. Afterwards it runs, or it is being reclaimed."""
        record, process = self.record, self.record.process
        if process is not None:
            slot = await self._host.slots.adopt(record.slot)
            place = self._surroundings(slot, self._host.directories.path(record.sandbox_id))
            try:
                self._machine = await self._host.driver.adopt(process, place)
                self._slot = slot
            except MachineError as error:
                self._life.note(f"not adopted: {error}")
        if record.ended is not None:
            self._feed(EndRequested(Outcome(record.ended[0]), record.ended[1]))
        if not record.running:
            self._feed(StartFailed("the orchestrator was restarted while it started"))
        elif self._machine is None:
            self._feed(Started())
            self._feed(MachineGone("its VM had ended while no orchestrator watched it"))
        else:
            await self._host.routes.open(record, slot.address)
            self._watch(self._machine)
            self._feed(Started())

    # Running

    def set_deadline(self, end_time: float) -> None:
        """Move the deadline (unix seconds), earlier or later. Raises OSError."""
        self._save(dataclasses.replace(self.record, end_time=end_time))
        self._life.note(f"deadline {_clock(end_time)}")
        self._arm()

    def _watch(self, machine: Machine) -> None:
        self._arm()
        self._spawn(self._watch_machine(machine))

    async def _watch_machine(self, machine: Machine) -> None:
        reason = await machine.wait()
        if self.state in (State.STARTING, State.RUNNING):
            console = await machine.console()
            self._feed(MachineGone(MachineError(reason, console).explain()))

    def _arm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        wait = max(0.0, self.record.end_time - time.time())
        self._deadline = loop.call_later(wait, self._deadline_passed)

    def _deadline_passed(self) -> None:
        # The timer is monotonic and the deadline is not: the clock may have been set back.
        if time.time() < self.record.end_time:
            self._arm()
            return
        self._feed(EndRequested(Outcome.EXPIRED, "its deadline passed"))

    # Ending

    async def end(self, outcome: Outcome, reason: str) -> None:
        """End it and return when nothing of it is left; a second caller joins the first."""
        self._feed(EndRequested(outcome, reason))
        await self._ended.wait()

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call back once, when nothing of it is left."""
        self._on_ended = callback

    async def detach(self) -> None:
        """Let it live on without this process."""
        if self._deadline is not None:
            self._deadline.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._machine is not None:
            await self._machine.detach()

    async def _reclaim(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        await self._attempt("close its route", self._host.routes.close(self.record))
        if self._machine is not None:
            await self._attempt("stop its VM", self._machine.stop())
        if self._slot is not None:
            await self._attempt("give back its slot", self._host.slots.release(self._slot))
            self._slot = None
        self._feed(Reclaimed())

    async def _attempt(self, what: str, work: Awaitable[None]) -> None:
        """One step of reclaiming: a failure is told and never keeps the rest from being done."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be reclaimed
            self._life.note(f"could not {what}: {error}")
            _log.exception("reclaiming failed", sandbox_id=self.record.sandbox_id, step=what)

    # The shell

    def _feed(self, event: Event) -> None:
        for instruction in self._life.handle(event):
            self._carry_out(instruction)
        if self.state is State.ENDED and not self._ended.is_set():
            self._on_ended()
            self._ended.set()

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Record(outcome, reason):
                self._record_end(outcome, reason)
            case Reclaim():
                self._spawn(self._reclaim())
            case Report(outcome, reason):
                run = self.record
                self._host.outbox.add(
                    run.sandbox_id, run.execution_id, outcome.value, reason, time.time()
                )
                _log.info("ended", sandbox_id=run.sandbox_id, outcome=outcome.value, reason=reason)
            case Forget():
                self._host.directories.remove(self.record.sandbox_id)

    def _record_end(self, outcome: Outcome, reason: str) -> None:
        self.record = dataclasses.replace(self.record, ended=(outcome.value, reason))
        if self._host.directories.path(self.record.sandbox_id).exists():
            self._host.directories.save(self.record)

    def _save(self, record: SandboxRecord) -> None:
        self.record = record
        self._host.directories.save(record)

    def _surroundings(self, slot: Slot, directory: Path) -> Surroundings:
        return Surroundings(
            name=machine_name(self._host.node, self.record.sandbox_id),
            directory=directory,
            slot=slot,
            uid=self._host.uid_base + slot.index,
            scratch=directory / SCRATCH_FILE,
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _settle(self, error: Exception | None) -> None:
        if self._settled.done():
            return
        if error is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(error)
            self._settled.exception()  # the caller may have gone: then nobody asks for it


def machine_name(node: str, sandbox_id: str) -> str:
    """The VMM's name in the process list, by which strays of a crash are found."""
    return f"emberbox-{node}-{sandbox_id}"


def _killed_while_starting() -> MachineError:
    return MachineError("the sandbox was killed while it was starting")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
