"""Metrics and logs of all sandboxes of this host."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from emberbox.orchestrator.errors import SandboxMissing
from emberbox.orchestrator.telemetry.samples import window
from emberbox.orchestrator.telemetry.watched import Turns, Watched
from emberbox.shared.text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from emberbox.orchestrator.network.policy import EgressPolicy
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.telemetry.entries import Entry, LogQuery
    from emberbox.orchestrator.telemetry.samples import Sample
    from emberbox.orchestrator.telemetry.store import TelemetryStore
    from emberbox.orchestrator.telemetry.watched import Guest

_log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 3600.0
_SWEEP_AFTER_ENDS = 100
_CONSOLE_LENGTH = 4000
_REASON_LENGTH = 500
_AT_ONCE = 4
_SILENT = ("crashed", "paused")
"""Outcomes with which the guest cannot answer any more."""


class Guests(Protocol):
    """Finds the envd of a sandbox."""

    def __call__(self, record: SandboxRecord) -> Guest:
        """The guest of a sandbox that runs."""


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds. `first`: from the start to the first sample. The others are time limits:
    of a sample, of fetching a log that is asked for, and of the last words at the end."""

    interval: float = 10.0
    first: float = 1.0
    sample: float = 5.0
    logs: float = 1.0
    last_words: float = 0.25


@dataclass(slots=True)
class _Run:
    """A sandbox that runs, and the task that samples it."""

    record: SandboxRecord
    watched: Watched
    guest: Guest
    task: asyncio.Task[None] | None = None


class Telemetry:
    """Watches sandboxes from `begin` to `end`. Never raises at them: they come first.

    `quiet` returns when a first sample, for which a guest runs code that it has not run before,
    disturbs nobody who waits for a start; it is not waited for longer than an interval.

    Each is sampled by a task of its own, so there are no wake-ups while there is no sandbox.
    """

    def __init__(
        self,
        store: TelemetryStore,
        guests: Guests,
        timing: Timing,
        quiet: Callable[[], Awaitable[None]],
    ) -> None:
        self._quiet = quiet
        self._store = store
        self._guests = guests
        self._timing = timing
        self._runs: dict[str, _Run] = {}
        self._turns = Turns(_AT_ONCE)
        self._ends = 0
        self._sweep_due = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep what is old, now and from time to time."""
        self._sweep_due.set()
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Leave every sandbox as it is, for the next orchestrator."""
        await asyncio.gather(*map(self._stop, list(self._runs)))
        if self._sweeper is not None:
            await _cancel(self._sweeper)

    async def begin(self, record: SandboxRecord) -> None:
        """A sandbox runs, or goes on running under this orchestrator."""
        await self._stop(record.sandbox_id)
        run = _Run(record, self._watched(record.sandbox_id), self._guests(record))
        await run.watched.resume()
        self._runs[record.sandbox_id] = run  # before it has files that could be swept
        _note_begin(run)
        run.task = asyncio.create_task(self._follow(run))

    async def end(self, record: SandboxRecord) -> None:
        """A sandbox is about to be stopped. Its machine may still be there for its last words."""
        run = self._runs.get(record.sandbox_id)
        outcome, reason = record.ended or ("", "")
        if run is not None and outcome not in _SILENT:
            await run.watched.refresh(run.guest, self._turns, self._timing.last_words)
        await self._stop(record.sandbox_id)
        if outcome:
            await self._note_end(run, record, outcome, reason)

    def deadline_moved(self, sandbox_id: str, end_time: float) -> None:
        """Its deadline is now `end_time` (unix seconds)."""
        if run := self._runs.get(sandbox_id):
            about = {"event": "deadline", "end_time": _moment(end_time)}
            run.watched.note("deadline moved", about)

    def egress_changed(self, sandbox_id: str, policy: EgressPolicy) -> None:
        """What it may reach is now this."""
        if run := self._runs.get(sandbox_id):
            run.watched.note("network changed", {"event": "network", "egress": policy.describe()})

    async def metrics(self, sandbox_id: str, start: int | None, end: int | None) -> list[Sample]:
        """Samples from `start` to `end` (unix seconds, inclusive). Raises SandboxMissing."""
        watched = self._known(sandbox_id)
        return window(await asyncio.to_thread(watched.samples), start, end)

    def latest(self, sandbox_ids: Iterable[str]) -> dict[str, Sample]:
        """The newest sample of each that runs and has one."""
        runs = ((one, self._runs.get(one)) for one in sandbox_ids)
        return {one: run.watched.latest for one, run in runs if run and run.watched.latest}

    async def logs(self, sandbox_id: str, query: LogQuery) -> list[Entry]:
        """Entries of its log, with what just happened in it. Raises SandboxMissing."""
        watched = self._known(sandbox_id)
        if run := self._runs.get(sandbox_id):
            await watched.refresh(run.guest, self._turns, self._timing.logs)
        return query.select(await watched.entries())

    def _known(self, sandbox_id: str) -> Watched:
        if run := self._runs.get(sandbox_id):
            return run.watched
        if not self._store.knows(sandbox_id):
            raise SandboxMissing(f"sandbox {sandbox_id} has left nothing on this host")
        return self._watched(sandbox_id)

    def _watched(self, sandbox_id: str) -> Watched:
        return Watched(sandbox_id, self._store.metrics(sandbox_id), self._store.log(sandbox_id))

    async def _follow(self, run: _Run) -> None:
        await asyncio.sleep(self._timing.first)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.interval):
                await self._quiet()
        while True:
            try:
                await run.watched.sample(run.guest, self._turns, self._timing.sample)
            except Exception:  # noqa: BLE001 - a defect of ours, to be seen in the log
                _log.exception("sample failed", sandbox_id=run.record.sandbox_id)
            await asyncio.sleep(self._timing.interval)

    async def _stop(self, sandbox_id: str) -> None:
        run = self._runs.pop(sandbox_id, None)
        if run is None:
            return
        run.watched.stop()
        if run.task is not None:
            await _cancel(run.task)
        run.guest.close()

    async def _note_end(
        self, run: _Run | None, record: SandboxRecord, outcome: str, reason: str
    ) -> None:
        if run is None and not self._store.knows(record.sandbox_id):
            return  # it never ran
        watched = run.watched if run else self._watched(record.sandbox_id)
        if run is None:
            await watched.resume()
        if not watched.ended:  # else a crash of the orchestrator came between then and now
            _note_outcome(watched, outcome, reason)
        if outcome != "paused":
            watched.forget_samples()
        self._ends += 1
        if self._ends % _SWEEP_AFTER_ENDS == 0:
            self._sweep_due.set()

    async def _sweep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sweep_due.wait(), _SWEEP_SECONDS)
            self._sweep_due.clear()
            try:
                await asyncio.to_thread(self._store.sweep, self._runs)
            except OSError as error:
                _log.error("old logs not swept", reason=str(error))


def _note_begin(run: _Run) -> None:
    record = run.record
    about = {"execution_id": record.execution_id, "end_time": _moment(record.end_time)}
    told = run.watched.executions
    if told and record.execution_id not in told:
        about["event"] = "resumed"
        run.watched.note("sandbox resumed", about)
    elif not run.watched.is_new:
        about["event"] = "adopted"
        run.watched.note("taken over by a restarted orchestrator", about)
    else:
        sizes = {name: str(getattr(record, name)) for name in ("vcpu", "ram_mb", "disk_mb")}
        template = {"template_id": record.template_id, "build_id": record.build_id}
        about |= {"event": "created", **template, **sizes}
        # Dated before what its guest says of its beginning.
        run.watched.note("sandbox created", about, at=record.start_time)


def _note_outcome(watched: Watched, outcome: str, reason: str) -> None:
    first_line, _, console = reason.partition("\nconsole:\n")
    first_line = first_line[:_REASON_LENGTH]
    level = "error" if outcome == "crashed" else "info"
    fields = {"event": "paused" if outcome == "paused" else "ended", "reason": first_line}
    if console:
        # ASCII, so that it has room on disk whatever the guest printed.
        tail = console[-_CONSOLE_LENGTH:].encode("ascii", "replace").decode("ascii")
        fields["console"] = printable(tail)
    watched.note(f"sandbox {outcome}: {first_line}", fields, level=level)


def _moment(seconds: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
