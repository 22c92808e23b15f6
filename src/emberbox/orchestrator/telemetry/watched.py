"""One sandbox under watch: its samples and log entries, fetched from its guest and written down."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from emberbox.orchestrator.errors import GuestUnreachable, OrchestratorError
from emberbox.orchestrator.telemetry.entries import ORCHESTRATOR, Entry
from emberbox.orchestrator.telemetry.samples import Sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from emberbox.orchestrator.telemetry.guest import Report
    from emberbox.orchestrator.telemetry.journal import Journal

_log = structlog.get_logger(__name__)

_MOST_ANSWERS = 8
"""Of one guest in a row: one that always has more does not keep us for ever."""
_LONGEST_TURN = 0.25


class Guest(Protocol):
    """The envd of one sandbox."""

    async def report(self, stream: str, after: int) -> Report:
        """What it uses, and its entries behind that number. Raises GuestUnreachable."""

    def close(self) -> None:
        """Nothing more is asked for now."""


class Turns:
    """How many guests work for us at once, so that samples do not come in bursts."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn. It is over with the block, or a moment after it began: a guest that
        does not answer costs nothing and must keep nobody waiting."""
        await self._free.acquire()
        with contextlib.ExitStack() as held:
            held.callback(self._free.release)
            loop = asyncio.get_running_loop()
            timer = loop.call_later(_LONGEST_TURN, lambda: held.pop_all().close())
            try:
                yield
            finally:
                timer.cancel()


class Watched:
    """What is known of one sandbox. `resume` reads what earlier programs wrote."""

    def __init__(self, sandbox_id: str, metrics: Journal, log: Journal) -> None:
        self.sandbox_id = sandbox_id
        self.latest: Sample | None = None
        self.ended = False
        """Whether the end is in its log."""
        self.is_new = True
        """Whether nothing was written down of it before `resume`."""
        self.executions: set[str] = set()
        """Its runs that the log tells of: of a long log the beginning is lost."""
        self._metrics = metrics
        self._journal = log
        self._seen: tuple[str, int] = ("", 0)
        self._fetching = asyncio.Lock()
        self._fetched_at = -1.0
        self._answers = True
        self._stopped = False
        self._limit: asyncio.Timeout | None = None

    async def resume(self) -> None:
        """Take up the last sample and the place in the guest's entries."""
        if not (self._metrics.exists() or self._journal.exists()):
            return
        self.is_new = False
        samples, entries = await asyncio.to_thread(self.samples), await self.entries()
        self.latest = samples[-1] if samples else None
        self._seen = next((e.source for e in reversed(entries) if e.source), ("", 0))
        for entry in entries:
            self._remember(entry)

    def samples(self) -> list[Sample]:
        """All that are kept, oldest first; reads a file."""
        found = (Sample.from_row(row) for row in self._metrics.read())
        return [sample for sample in found if sample is not None]

    async def entries(self) -> list[Entry]:
        """All that are kept, in the order they were written."""
        rows = await asyncio.to_thread(self._journal.read)
        return [entry for entry in map(Entry.from_row, rows) if entry is not None]

    def note(
        self,
        message: str,
        fields: dict[str, str],
        *,
        level: str = "info",
        at: float | None = None,
    ) -> None:
        """Add an entry of the host's own; `at` is now, unless given in unix seconds."""
        moment = time.time() if at is None else at
        entry = Entry(round(moment, 6), level, ORCHESTRATOR, message, fields)
        self._remember(entry)
        self._write([entry])

    def forget_samples(self) -> None:
        """They are not needed after the end; the log is."""
        with self._tolerated():
            self._metrics.remove()

    def stop(self) -> None:
        """Ask nothing more, and break off what is being asked.

        Its network slot is about to be another's, whose guest must not be taken for this one.
        """
        self._stopped = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def sample(self, guest: Guest, turns: Turns, seconds: float) -> None:
        """Take a sample, with what is new in the log; nothing when the guest does not answer."""
        async with self._fetching:
            if (report := await self._fetch(guest, turns, seconds)) is None:
                return
        self.latest = Sample.of(time.time(), report.metrics, self.latest)
        with self._tolerated():
            self._metrics.append([self.latest.to_row()])

    async def refresh(self, guest: Guest, turns: Turns, seconds: float) -> None:
        """Fetch what is new in the log. Callers at once share the guest's answer."""
        asked = time.monotonic()
        with contextlib.suppress(TimeoutError):
            # Around all, since a sample of a guest that is stuck may hold the lock for longer.
            async with asyncio.timeout(seconds), self._fetching:
                if self._fetched_at < asked:
                    await self._fetch(guest, turns, seconds)

    async def _fetch(self, guest: Guest, turns: Turns, seconds: float) -> Report | None:
        self._fetched_at = time.monotonic()
        try:
            async with turns.take() if self._answers else contextlib.nullcontext():
                report = await self._take_all(guest, seconds)
        except (OrchestratorError, OSError, TimeoutError) as error:
            if self._answers and not self._stopped:
                reason = str(error) or f"no answer within {seconds} s"
                _log.warning("no telemetry", sandbox_id=self.sandbox_id, reason=reason)
            self._answers = False
            return None
        self._answers = True
        return report

    async def _take_all(self, guest: Guest, seconds: float) -> Report:
        if self._stopped:
            raise GuestUnreachable("the sandbox has ended")
        try:
            async with asyncio.timeout(seconds) as self._limit:
                for _ in range(_MOST_ANSWERS):
                    report = await guest.report(*self._seen)
                    self._take(report)
                    if not report.more:
                        break
        finally:
            self._limit = None
        return report

    def _take(self, report: Report) -> None:
        stream, last = self._seen
        if report.stream != stream:
            stream, last = report.stream, 0
        entries = [e for e in report.log_entries(time.time()) if e.source and e.source[1] > last]
        if entries and entries[0].source and (missed := entries[0].source[1] - last - 1) > 0:
            told = f"{missed} entries of the guest were dropped: there were too many"
            self.note(told, {"event": "dropped"}, level="warn")
        self._write(entries)
        numbers = (entry.source[1] for entry in entries if entry.source)
        self._seen = (stream, max(numbers, default=last))

    def _remember(self, entry: Entry) -> None:
        if entry.logger == ORCHESTRATOR:
            event = entry.fields.get("event")
            self.ended = (self.ended and event != "resumed") or event in ("ended", "paused")
            if execution_id := entry.fields.get("execution_id"):
                self.executions.add(execution_id)

    def _write(self, entries: list[Entry]) -> None:
        with self._tolerated():
            self._journal.append(entry.to_row() for entry in entries)

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """A full disk costs samples and entries, and never a sandbox."""
        try:
            yield
        except OSError as error:
            _log.error("telemetry not kept", sandbox_id=self.sandbox_id, reason=str(error))
