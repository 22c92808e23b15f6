"""One sandbox: the shell that carries out what its lifecycle decides."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import failpoints
from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import MachineError, OrchestratorError
from emberbox.orchestrator.sandboxes.deadline import Deadline
from emberbox.orchestrator.sandboxes.egress import Egress
from emberbox.orchestrator.sandboxes.ending import Ending
from emberbox.orchestrator.sandboxes.holdings import Holdings
from emberbox.orchestrator.sandboxes.joint import Joint
from emberbox.orchestrator.sandboxes.lifecycle import (
    Copy,
    EndRequested,
    Event,
    Forget,
    Instruction,
    Lifecycle,
    MachineGone,
    Outcome,
    PauseRequested,
    Reclaim,
    Reclaimed,
    Record,
    Report,
    Started,
    StartFailed,
    State,
    Suspend,
)
from emberbox.orchestrator.sandboxes.saving import Saving
from emberbox.orchestrator.sandboxes.starting import Start, killed_while_starting
from emberbox.orchestrator.sandboxes.steps import OperationSteps
from emberbox.orchestrator.sandboxes.suspending import let_run
from emberbox.orchestrator.snapshots.of_run import SnapshotsOfRun
from emberbox.shared import correlation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextvars import Context

    from emberbox.orchestrator.machines.driver import Machine
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.policy import EgressPolicy
    from emberbox.orchestrator.sandboxes.beginning import Beginning
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.snapshots.manifest import Snapshot

_log = structlog.get_logger(__name__)


class Sandbox:
    """One run of one sandbox on this host."""

    def __init__(self, host: Host, record: SandboxRecord) -> None:
        self.record = record
        self.steps = OperationSteps("resume" if record.resumed else "create")
        self._beginning: Start | None = None
        self._host = host
        self._life = Lifecycle(record.sandbox_id, time.time, record.resumed)
        self._holdings = Holdings(host, self._life.note)
        self._snapshots = SnapshotsOfRun(host.snapshots, record.sandbox_id, record.execution_id)
        self._deadline = Deadline(self._deadline_passed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: Joint[None] = Joint()
        self._egress = Egress(host.slots, lambda: self.record, self._save, self._life.note)
        self.unrouted = asyncio.Event()
        self.ended = asyncio.Event()
        self._ending = Ending(host, self._life.note)
        self._on_ended: Callable[[], object] = lambda: None
        self.saving = Saving(host, self)
        """Pauses and copies of it."""

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._life.state

    @property
    def way(self) -> str:
        """How it was started: "pool", "clone", "boot" or "resume"; empty when it was adopted."""
        return self._beginning.way if self._beginning else ""

    @property
    def is_paused(self) -> bool:
        """Whether its snapshot is what is left of it, or soon will be."""
        return self._life.end is not None and self._life.end.outcome is Outcome.PAUSED

    @property
    def slot_index(self) -> int | None:
        """Its network slot, while it has one."""
        return self._holdings.slot.index if self._holdings.slot else None

    def note(self, text: str) -> None:
        """Write into its story."""
        self._life.note(text)

    def story(self) -> list[str]:
        """Its events, oldest first, each with its time."""
        return [f"{_clock(at)} {text}" for at, text in self._life.story]

    # Starting

    def begin(self, beginning: Beginning, group: str) -> None:
        """Start in the background: a caller that goes away does not break it off half-way.

        What is not a warm clone waits for its turn, in a queue of `group`'s own. Raises
        AdmissionRefused when that would take too long; then nothing has begun.
        """
        self._beginning = Start(self._host, self._holdings, self.steps, self._life)
        self._spawn(self._start(self._become(self._beginning.begin(self.record, beginning, group))))

    async def settled(self) -> None:
        """Return when it runs. Raises what its start failed with."""
        await self._settled.result()

    async def _start(self, bringing_up: Awaitable[None]) -> None:
        try:
            with self.steps.whole():
                await bringing_up
                with self.steps.measure("route"):
                    await self._open()
            self._tell_steps()
        except Exception as error:  # noqa: BLE001 - reclaimed, and told to whoever asked
            await self._start_failed(error)
        else:
            self.feed(Started())
            self._settle()
            await self._drop_consumed()

    def _tell_steps(self) -> None:
        taken, total = self.steps.rounded(), round(self.steps.total, 1)
        self._life.note(f"ready after {total} ms, of which in ms: {taken}")
        _log.info("ready", sandbox_id=self.record.sandbox_id, milliseconds=total, steps=taken)

    async def _become(self, start: Awaitable[SandboxRecord]) -> None:
        self._became(await start)

    def _became(self, record: SandboxRecord) -> None:
        """What a start has found out; an end that was decided meanwhile stays decided."""
        self.record = dataclasses.replace(record, ended=self.record.ended)

    async def _introduce_again(self, snapshot: Snapshot) -> None:
        """The rest of a resume that an orchestrator before this one did not live to see."""
        run = self.record
        identity = Identity(
            run.sandbox_id, run.template_id, run.execution_id, run.envd_token or "", run.env_vars
        )
        if self._holdings.machine is not None:
            await let_run(self._holdings.machine, self._life.note)
        token = snapshot.envd_token or ""
        self._became(await self._holdings.introduce(run, identity, token))

    async def _drop_consumed(self) -> None:
        """A run that is recorded as running needs the snapshot no more that it began with."""
        if self.record.resumed and self.state is State.RUNNING:
            await self._snapshots.drop()

    async def _start_failed(self, error: Exception) -> None:
        expected = isinstance(error, OrchestratorError | OSError)
        reason = error.explain() if isinstance(error, MachineError) else str(error)
        _log.warning(
            "start failed",
            sandbox_id=self.record.sandbox_id,
            reason=reason,
            exc_info=None if expected else error,
        )
        if self.state is State.STARTING and await self._has_run():
            await self.saving.save_again()
        self.feed(StartFailed(reason))
        # Who asked gets the error when everything is given back: asking again finds the room.
        await self.ended.wait()
        self._settled.fail(error)

    async def _has_run(self) -> bool:
        """Whether it is a run that goes on from a snapshot and has a machine that may have run."""
        return self._holdings.machine is not None and await self._snapshots.taken() is not None

    async def _open(self) -> None:
        slot, machine = self._holdings.both()
        self._save(dataclasses.replace(self.record, running=True))
        failpoints.reach("resume-running")
        await self._host.routes.open(self.record, slot.address)
        failpoints.reach("resume-routed")
        self.rearm()
        # It is watched long after the request that started it.
        self._spawn(self._watch(machine), correlation.without_request())

    # Taking hold again after a restart of the orchestrator

    async def adopt(self) -> None:
        """Take hold of what the record says. Afterwards it runs, or it is being reclaimed, or
        what was left of its start goes on."""
        await self._holdings.take_again(self.record)
        if (end := await self._known_end()) is not None:
            self.feed(end)
        if not self.record.running:
            await self._adopt_starting()
        elif self._holdings.machine is None:
            self.feed(Started())
            self.feed(MachineGone("its VM had ended while no orchestrator watched it"))
        else:
            self.feed(Started())
            if self.state is State.RUNNING:
                # It stands still when the orchestrator ended while it was being saved.
                await let_run(self._holdings.machine, self._life.note)
                await self._open()
                await self._drop_consumed()
        # Whoever asks for the same start again joins what has come of it.
        if self.state is not State.STARTING:
            self._settle()

    async def _known_end(self) -> EndRequested | None:
        if self.record.ended is not None:
            outcome, reason = self.record.ended
            return EndRequested(Outcome(outcome), reason)
        if await self._snapshots.own() is not None:
            return EndRequested(Outcome.PAUSED, "its snapshot was whole when its host failed")
        return None

    async def _adopt_starting(self) -> None:
        """One that has taken its snapshot may have changed its disk: it cannot begin again."""
        taken = await self._snapshots.taken()
        if taken is not None and self._holdings.machine and self.state is State.STARTING:
            self.note("taken over while it was being resumed")
            self._spawn(self._start(self._introduce_again(taken)))
        else:
            self.feed(StartFailed("the orchestrator was restarted while it started"))

    # Running

    def set_deadline(self, end_time: float) -> None:
        """Move the deadline (unix seconds), earlier or later. Raises OSError."""
        self._save(dataclasses.replace(self.record, end_time=end_time))
        self.note(f"deadline {_clock(end_time)}")
        self.rearm()

    async def set_egress(self, policy: EgressPolicy) -> None:
        """Replace what it may reach. Raises MachineError, NetworkError or OSError; all is as
        before then."""
        slot, _ = self._holdings.both()
        await self._egress.replace(slot, policy)

    async def _watch(self, machine: Machine) -> None:
        reason = await machine.wait()
        if self.state not in (State.ENDING, State.ENDED):
            console = await machine.console()
            self.feed(MachineGone(MachineError(reason, console).explain()))

    def rearm(self, at_least: float = 0.0) -> None:
        """Look at its deadline again, `at_least` seconds from now."""
        self._deadline.arm(self.record.end_time, at_least)

    def _deadline_passed(self) -> None:
        reason = "its deadline passed"
        if self.record.auto_pause:
            self.feed(PauseRequested(reason, self.record.auto_pause_files_only))
        else:
            self.feed(EndRequested(Outcome.EXPIRED, reason))

    def held(self) -> tuple[Slot, Machine]:
        """What it runs on. Raises MachineError when it has nothing."""
        return self._holdings.both()

    # Ending

    async def end(self, outcome: Outcome, reason: str) -> None:
        """End it and return when nothing of it is left; a second caller joins the first."""
        self.feed(EndRequested(outcome, reason))
        await self.ended.wait()

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call back once, when nothing of it is left."""
        self._on_ended = callback

    async def detach(self) -> None:
        """Let it live on without this process."""
        self._deadline.disarm()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._holdings.detach()

    async def _reclaim(self) -> None:
        self._deadline.disarm()
        await self._host.routes.close(self.record)
        failpoints.reach("pause-unrouted")
        self.unrouted.set()
        await self._holdings.give_back()
        failpoints.reach("pause-released")
        if self.record.resumed:
            await self._keep_files()
        self.feed(Reclaimed())

    async def _keep_files(self) -> None:
        """A resume that failed after it had taken its snapshot leaves the disk as it is now."""
        if not self.is_paused:
            return
        try:
            await self._snapshots.give_back()
        except OSError as error:
            # It keeps the name that says whose it is, and the next start tries again.
            self.note(f"its files could not be given back: {error}")

    # The shell

    def feed(self, event: Event) -> None:
        """Take an event, and do what follows from it."""
        for instruction in self._life.handle(event):
            self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Record(outcome, reason):
                self.record = self._ending.write_down(self.record, outcome, reason)
            case Reclaim():
                self._spawn(self._reclaim())
            case Report(outcome, reason):
                self._ending.report(self.record, outcome, reason)
            case Copy():
                self._spawn(self.saving.copy())
            case Suspend():
                self._spawn(self.saving.suspend(instruction))
            case Forget(discard):
                self._spawn(self._forget(discard=discard))

    async def _forget(self, *, discard: bool) -> None:
        failpoints.reach("pause-reported")
        await self._ending.forget(self.record, discard=discard)
        self._on_ended()
        self.ended.set()

    def _save(self, record: SandboxRecord) -> None:
        """Written first, and only then true. Raises OSError."""
        self._host.directories.save(record)
        self.record = record

    def _spawn(self, work: Coroutine[None, None, None], context: Context | None = None) -> None:
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error(
                "a sandbox's task failed",
                sandbox_id=self.record.sandbox_id,
                story=self.story(),
                exc_info=error,
            )

    def _settle(self) -> None:
        if self.state is State.RUNNING:
            self._settled.succeed(None)
        else:
            self._settled.fail(killed_while_starting())


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
