"""One sandbox: the shell that carries out what its lifecycle decides."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
import time
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import failpoints, metrics
from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import MachineError, OrchestratorError, SandboxMissing
from emberbox.orchestrator.sandboxes.copying import Copying
from emberbox.orchestrator.sandboxes.holdings import RESUME_READY_SECONDS, Holdings
from emberbox.orchestrator.sandboxes.joint import Joint
from emberbox.orchestrator.sandboxes.lifecycle import (
    CheckpointRequested,
    Copied,
    Copy,
    EndRequested,
    Event,
    Forget,
    Instruction,
    Lifecycle,
    MachineGone,
    Outcome,
    PauseFailed,
    PauseRequested,
    Reclaim,
    Reclaimed,
    Record,
    Report,
    Saved,
    Started,
    StartFailed,
    State,
    Suspend,
)
from emberbox.orchestrator.sandboxes.steps import OperationSteps
from emberbox.orchestrator.sandboxes.suspending import Suspension, let_run
from emberbox.shared import correlation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextvars import Context

    from emberbox.orchestrator.machines.driver import Machine
    from emberbox.orchestrator.sandboxes.copying import Draft, Wanted
    from emberbox.orchestrator.sandboxes.holdings import Beginning, Host, WarmClone
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.sandboxes.starts import Turn
    from emberbox.orchestrator.snapshots.manifest import Snapshot

_log = structlog.get_logger(__name__)

_LONGEST_NAP = 30.0
"""Seconds after which a deadline is compared with the clock again."""

_PAUSE_AGAIN = 10.0
"""Seconds after which a pause at the deadline is tried again that failed, as on a full disk."""


class Sandbox:
    """One run of one sandbox on this host."""

    def __init__(self, host: Host, record: SandboxRecord) -> None:
        self.record = record
        self.steps = OperationSteps("resume" if record.resumed else "create")
        self.way = ""
        """How it was started: "pool", "clone", "boot" or "resume"; empty when it was adopted."""
        self._host = host
        self._life = Lifecycle(record.sandbox_id, time.time, record.resumed)
        self._holdings = Holdings(host, self._life.note)
        self._deadline: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: Joint[None] = Joint()
        self._suspended: Joint[Snapshot] | None = None
        self._copies = asyncio.Lock()
        self._copy: tuple[Wanted, Joint[Draft]] | None = None
        self._ended = asyncio.Event()
        self._keep_directory = False
        self._on_ended: Callable[[], object] = lambda: None

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._life.state

    @property
    def slot_index(self) -> int | None:
        """Its network slot, while it has one."""
        return self._holdings.slot.index if self._holdings.slot else None

    def story(self) -> list[str]:
        """Its events, oldest first, each with its time."""
        return [f"{_clock(at)} {text}" for at, text in self._life.story]

    # Starting

    def begin(self, beginning: Beginning, group: str) -> None:
        """Start in the background: a caller that goes away does not break it off half-way.

        What is not a warm clone waits for its turn, in a queue of `group`'s own. Raises
        AdmissionRefused when that would take too long; then nothing has begun.
        """
        starts, clone = self._host.starts, beginning.clone
        self.way = _way(beginning)
        if clone is None:
            self._spawn(self._start(self._bring_up(beginning, starts.join(group))))
        else:
            self._spawn(self._start(self._take_over(beginning, clone, group, starts.step_in())))

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
            self._feed(Started())
            self._settle()
            await self._drop_consumed()

    async def _bring_up(self, beginning: Beginning, turn: Turn) -> None:
        async with contextlib.AsyncExitStack() as start:
            with self.steps.measure("queue"):
                await start.enter_async_context(turn)
            if self.state is State.ENDING:
                raise _killed_while_starting()
            self._became(await self._holdings.bring_up(self.record, beginning, self.steps))

    async def _take_over(
        self, beginning: Beginning, clone: WarmClone, group: str, turn: contextlib.ExitStack
    ) -> None:
        """Make the warm clone this sandbox, or a fresh one when that fails."""
        with turn:
            try:
                self._became(
                    await self._holdings.take_over(
                        self.record, clone, beginning.identity, self.steps
                    )
                )
            except (OrchestratorError, OSError) as error:
                name = clone.directory.name
                _log.warning("a warm clone failed", clone=name, reason=str(error))
                self._life.note(f"the warm clone {name} was of no use: {error}")
            else:
                return
            self.way = "clone"
            await self._holdings.give_back()
            await asyncio.to_thread(clone.discard)
            await asyncio.to_thread(self._host.directories.remove, self.record.sandbox_id)
        await self._bring_up(beginning, self._host.starts.join(group))

    def _tell_steps(self) -> None:
        taken, total = self.steps.rounded(), round(self.steps.total, 1)
        self._life.note(f"ready after {total} ms, of which in ms: {taken}")
        _log.info("ready", sandbox_id=self.record.sandbox_id, milliseconds=total, steps=taken)

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
        self._became(await self._holdings.introduce(run, identity, token, RESUME_READY_SECONDS))

    async def _drop_consumed(self) -> None:
        """A run that is recorded as running needs the snapshot no more that it began with."""
        if self.record.resumed and self.state is State.RUNNING:
            ids = self.record.sandbox_id, self.record.execution_id
            await asyncio.to_thread(self._host.snapshots.drop_consumed, *ids)

    async def _start_failed(self, error: Exception) -> None:
        expected = isinstance(error, OrchestratorError | OSError)
        reason = error.explain() if isinstance(error, MachineError) else str(error)
        _log.warning(
            "start failed",
            sandbox_id=self.record.sandbox_id,
            reason=reason,
            exc_info=None if expected else error,
        )
        self._feed(StartFailed(reason))
        # Who asked gets the error when everything is given back: asking again finds the room.
        await self._ended.wait()
        self._settled.fail(error)

    async def _open(self) -> None:
        slot, machine = self._holdings.both()
        self._save(dataclasses.replace(self.record, running=True))
        failpoints.reach("resume-running")
        await self._host.routes.open(self.record, slot.address)
        failpoints.reach("resume-routed")
        self._arm()
        # It is watched long after the request that started it.
        self._spawn(self._watch(machine), correlation.without_request())

    # Taking hold again after a restart of the orchestrator

    async def adopt(self) -> None:
        """Take hold of what the record says. Afterwards it runs, or it is being reclaimed, or
        what was left of its start goes on."""
        await self._holdings.take_again(self.record)
        if (end := await self._known_end()) is not None:
            self._feed(end)
        if not self.record.running:
            await self._adopt_starting()
        elif self._holdings.machine is None:
            self._feed(Started())
            self._feed(MachineGone("its VM had ended while no orchestrator watched it"))
        else:
            self._feed(Started())
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
        snapshot = await asyncio.to_thread(self._host.snapshots.find, self.record.sandbox_id)
        if snapshot is not None and snapshot.execution_id == self.record.execution_id:
            return EndRequested(Outcome.PAUSED, "its snapshot was whole when its host failed")
        return None

    async def _adopt_starting(self) -> None:
        """One that has taken its snapshot may have changed its disk: it cannot begin again."""
        ids = self.record.sandbox_id, self.record.execution_id
        taken = await asyncio.to_thread(self._host.snapshots.consumed, *ids)
        if taken is not None and self._holdings.machine and self.state is State.STARTING:
            self._life.note("taken over while it was being resumed")
            self._spawn(self._start(self._introduce_again(taken)))
        else:
            self._feed(StartFailed("the orchestrator was restarted while it started"))

    # Running

    def set_deadline(self, end_time: float) -> None:
        """Move the deadline (unix seconds), earlier or later. Raises OSError."""
        self._save(dataclasses.replace(self.record, end_time=end_time))
        self._life.note(f"deadline {_clock(end_time)}")
        self._arm()

    async def _watch(self, machine: Machine) -> None:
        reason = await machine.wait()
        if self.state not in (State.ENDING, State.ENDED):
            console = await machine.console()
            self._feed(MachineGone(MachineError(reason, console).explain()))

    def _arm(self, at_least: float = 0.0) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        wait = max(at_least, self.record.end_time - time.time())
        # The timer is monotonic and the deadline is not: the clock may be set meanwhile.
        self._deadline = loop.call_later(
            min(wait, _LONGEST_NAP),
            self._deadline_passed,
            context=correlation.without_request(),
        )

    def _deadline_passed(self) -> None:
        if time.time() < self.record.end_time:
            self._arm()
            return
        reason = "its deadline passed"
        if self.record.auto_pause:
            self._feed(PauseRequested(reason, self.record.auto_pause_files_only))
        else:
            self._feed(EndRequested(Outcome.EXPIRED, reason))

    # Pausing

    async def pause(self, wanted: PauseRequested) -> Snapshot:
        """Write it to disk and return when nothing but its snapshot is left.

        A second caller joins the first. Raises SandboxMissing when it ends otherwise; else what
        writing failed with, and it runs on.
        """
        async with self._copies:
            self._feed(wanted)
        if self._suspended is None:
            raise SandboxMissing(f"sandbox {self.record.sandbox_id} has ended")
        return await self._suspended.result()

    async def unpaused(self) -> None:
        """Return when it is not being paused: it runs, or nothing of it is left."""
        if self._suspended is not None:
            await self._suspended.wait()

    @property
    def is_pausing(self) -> bool:
        """Whether it is being paused, or is and not all is given back."""
        return self._suspended is not None and not self._suspended.over

    async def _suspend(self, wanted: Suspend, suspended: Joint[Snapshot]) -> None:
        try:
            slot, machine = self._holdings.both()
            attempt = Suspension(self._host, self.record, machine, slot, self._life.note)
            snapshot = await attempt.run(wanted)
        except Exception as error:  # noqa: BLE001 - told to whoever asked; it runs on
            await self._suspend_failed(suspended, error)
        else:
            self._feed(Saved())
            await self._ended.wait()
            if self._life.end is not None and self._life.end.outcome is Outcome.PAUSED:
                suspended.succeed(snapshot)
            else:
                suspended.fail(_killed_while_pausing())

    async def _suspend_failed(self, suspended: Joint[Snapshot], error: Exception) -> None:
        _log.warning("pause failed", sandbox_id=self.record.sandbox_id, reason=str(error))
        self._feed(PauseFailed(str(error)))
        if self.state is State.RUNNING:
            self._arm(_PAUSE_AGAIN if self.record.auto_pause else 0.0)
            self._suspended = None
            suspended.fail(error)
        else:
            await self._ended.wait()
            suspended.fail(_killed_while_pausing())

    # Copying

    async def checkpoint(self, wanted: Wanted) -> Draft:
        """Copy it while it stands still; it runs on. One copy after the other.

        Raises SandboxMissing when it does not run, else what copying failed with.
        """
        async with self._copies:
            if self.state is not State.RUNNING:
                raise SandboxMissing(f"sandbox {self.record.sandbox_id} is {self.state.value}")
            copied: Joint[Draft] = Joint()
            self._copy = wanted, copied
            self._feed(CheckpointRequested())
            return await copied.result()

    async def _make_copy(self, wanted: Wanted, copied: Joint[Draft]) -> None:
        try:
            slot, machine = self._holdings.both()
            attempt = Copying(self._host, self.record, machine, slot, self._life.note)
            draft = await attempt.run(wanted)
        except Exception as error:  # noqa: BLE001 - told to whoever asked; it runs on
            _log.warning("copy failed", sandbox_id=self.record.sandbox_id, reason=str(error))
            self._feed(Copied())
            copied.fail(error)
        else:
            self._feed(Copied())
            copied.succeed(draft)

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
        await self._holdings.detach()

    async def _reclaim(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        await self._host.routes.close(self.record)
        failpoints.reach("pause-unrouted")
        await self._holdings.give_back()
        failpoints.reach("pause-released")
        if self.record.resumed:
            await self._keep_files()
        self._feed(Reclaimed())

    async def _keep_files(self) -> None:
        """A resume that failed after it had taken its snapshot leaves the disk as it is now."""
        ids = self.record.sandbox_id, self.record.execution_id
        if self._life.end is None or self._life.end.outcome is not Outcome.PAUSED:
            return
        try:
            await asyncio.to_thread(self._host.snapshots.give_back, *ids)
        except OSError as error:
            # It keeps the name that says whose it is, and the next start tries again.
            self._life.note(f"its files could not be given back: {error}")

    # The shell

    def _feed(self, event: Event) -> None:
        for instruction in self._life.handle(event):
            self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Record(outcome, reason):
                self._record_end(outcome, reason)
            case Reclaim():
                self._spawn(self._reclaim())
            case Report(outcome, reason):
                self._report(outcome, reason)
            case Copy():
                if self._copy is not None:
                    self._spawn(self._make_copy(*self._copy))
            case Suspend():
                self._suspended = Joint()
                self._spawn(self._suspend(instruction, self._suspended))
            case Forget(discard):
                self._spawn(self._forget(discard=discard))

    def _record_end(self, outcome: Outcome, reason: str) -> None:
        self.record = dataclasses.replace(self.record, ended=(outcome.value, reason))
        try:
            self._host.directories.save(self.record)
        except OSError as error:
            # A full disk must not keep a sandbox alive. Without it a crash before the report
            # tells "crashed" of what was killed.
            self._life.note(f"its end could not be written down: {error}")

    def _report(self, outcome: Outcome, reason: str) -> None:
        run = self.record
        _log.info("ended", sandbox_id=run.sandbox_id, outcome=outcome.value, reason=reason)
        metrics.count_end(outcome.value)
        try:
            self._host.outbox.add(
                run.sandbox_id, run.execution_id, outcome.value, reason, time.time()
            )
        except sqlite3.Error as error:
            # The run directory stays, and with it the outcome for the next start to report.
            self._life.note(f"its end could not be reported: {error}")
            _log.error("outcome kept in the run directory", sandbox_id=run.sandbox_id)
            self._keep_directory = True

    async def _forget(self, *, discard: bool) -> None:
        """Off the loop: a scratch disk of gigabytes takes its time to unlink."""
        failpoints.reach("pause-reported")
        if discard:
            await asyncio.to_thread(self._host.snapshots.discard, self.record.sandbox_id)
        if not self._keep_directory:
            await asyncio.to_thread(self._host.directories.remove, self.record.sandbox_id)
        self._on_ended()
        self._ended.set()

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
            self._settled.fail(_killed_while_starting())


def _way(beginning: Beginning) -> str:
    if beginning.clone is not None:
        return "pool"
    if beginning.cold:
        return "boot"
    return "resume" if beginning.snapshot is not None else "clone"


def _killed_while_starting() -> MachineError:
    return MachineError("the sandbox was killed while it was starting")


def _killed_while_pausing() -> SandboxMissing:
    return SandboxMissing("the sandbox ended while it was being paused")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
