"""One sandbox: the shell that carries out what its lifecycle decides."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import time
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.errors import MachineError, OrchestratorError
from emberbox.orchestrator.sandboxes.holdings import Holdings
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
from emberbox.orchestrator.sandboxes.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.machines.driver import Machine
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)

_LONGEST_NAP = 30.0
"""Seconds after which a deadline is compared with the clock again."""


class Sandbox:
    """One run of one sandbox on this host."""

    def __init__(self, host: Host, record: SandboxRecord) -> None:
        self.record = record
        self.steps = Steps()
        self._host = host
        self._life = Lifecycle(record.sandbox_id, time.time)
        self._holdings = Holdings(host, self._life.note)
        self._deadline: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
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
                self.record = await self._holdings.bring_up(
                    self.record, template, identity, self.steps, cold=cold
                )
            finally:
                self._host.starts.release()
            with self.steps.measure("route"):
                await self._open()
        except Exception as error:  # noqa: BLE001 - reclaimed, and told to whoever asked
            await self._start_failed(error)
        else:
            self._feed(Started())
            self._settle(None if self.state is State.RUNNING else _killed_while_starting())

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
        self._settle(error)

    async def _open(self) -> None:
        slot, machine = self._holdings.slot, self._holdings.machine
        if slot is None or machine is None:
            raise MachineError("the sandbox holds no machine")
        self._save(dataclasses.replace(self.record, running=True))
        await self._host.routes.open(self.record, slot.address)
        self._arm()
        self._spawn(self._watch(machine))

    # Taking hold again after a restart of the orchestrator

    async def adopt(self) -> None:
        """Take hold of what the record says. Afterwards it runs, or it is being reclaimed."""
        await self._holdings.take_again(self.record)
        if self.record.ended is not None:
            outcome, reason = self.record.ended
            self._feed(EndRequested(Outcome(outcome), reason))
        if not self.record.running:
            self._feed(StartFailed("the orchestrator was restarted while it started"))
        elif self._holdings.machine is None:
            self._feed(Started())
            self._feed(MachineGone("its VM had ended while no orchestrator watched it"))
        else:
            self._feed(Started())
            if self.state is State.RUNNING:
                await self._open()

    # Running

    def set_deadline(self, end_time: float) -> None:
        """Move the deadline (unix seconds), earlier or later. Raises OSError."""
        self._save(dataclasses.replace(self.record, end_time=end_time))
        self._life.note(f"deadline {_clock(end_time)}")
        self._arm()

    async def _watch(self, machine: Machine) -> None:
        reason = await machine.wait()
        if self.state in (State.STARTING, State.RUNNING):
            console = await machine.console()
            self._feed(MachineGone(MachineError(reason, console).explain()))

    def _arm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        wait = max(0.0, self.record.end_time - time.time())
        # The timer is monotonic and the deadline is not: the clock may be set meanwhile.
        self._deadline = loop.call_later(min(wait, _LONGEST_NAP), self._deadline_passed)

    def _deadline_passed(self) -> None:
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
        await self._holdings.detach()

    async def _reclaim(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        await self._host.routes.close(self.record)
        await self._holdings.give_back()
        self._feed(Reclaimed())

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
            case Forget():
                self._spawn(self._forget())

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
        try:
            self._host.outbox.add(
                run.sandbox_id, run.execution_id, outcome.value, reason, time.time()
            )
        except sqlite3.Error as error:
            # The run directory stays, and with it the outcome for the next start to report.
            self._life.note(f"its end could not be reported: {error}")
            _log.error("outcome kept in the run directory", sandbox_id=run.sandbox_id)
            self._keep_directory = True

    async def _forget(self) -> None:
        """Off the loop: a scratch disk of gigabytes takes its time to unlink."""
        if not self._keep_directory:
            await asyncio.to_thread(self._host.directories.remove, self.record.sandbox_id)
        self._on_ended()
        self._ended.set()

    def _save(self, record: SandboxRecord) -> None:
        """Written first, and only then true. Raises OSError."""
        self._host.directories.save(record)
        self.record = record

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
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

    def _settle(self, error: Exception | None) -> None:
        if self._settled.done():
            return
        if error is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(error)
            self._settled.exception()  # the caller may have gone: then nobody asks for it


def _killed_while_starting() -> MachineError:
    return MachineError("the sandbox was killed while it was starting")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
