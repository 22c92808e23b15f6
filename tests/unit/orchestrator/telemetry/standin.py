"""Guests that answer as a test wants, and orchestrators' telemetry over one directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.sandboxes.records import SandboxRecord
from emberbox.orchestrator.telemetry.entries import LogQuery
from emberbox.orchestrator.telemetry.guest import Report, Usage
from emberbox.orchestrator.telemetry.store import Retention, TelemetryStore
from emberbox.orchestrator.telemetry.telemetry import Telemetry, Timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

FAST = Timing(interval=0.01, first=0, sample=5, logs=0.2, last_words=0.2)
SELDOM = replace(FAST, interval=3600)
ALL = LogQuery()


@dataclass
class StandInGuest:
    """Answers with what a test put into it, or does not answer."""

    stream: str = "aa"
    entries: list[str] = field(default_factory=list)
    page: int = 100
    stuck: bool = False
    failing: bool = False
    busy: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    broken_off: int = 0
    closed: bool = False

    async def report(self, stream: str, after: int) -> Report:
        self.asked.append((stream, after))
        await asyncio.sleep(0)
        if self.stuck:
            await self._for_ever()
        if self.failing:
            raise GuestUnreachable("it is off")
        self.busy += 50
        known = after if stream == self.stream else 0
        rows: list[tuple[int, float, str, str, str, dict[str, str]]]
        rows = [(n, 100.0 + n, "info", "process", text, {}) for n, text in self._numbered()]
        waiting = [row for row in rows if row[0] > known]
        return Report.model_validate(
            {
                "metrics": usage(self.busy),
                "stream": self.stream,
                "entries": waiting[: self.page],
                "more": len(waiting) > self.page,
            }
        )

    def close(self) -> None:
        self.closed = True

    async def _for_ever(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.broken_off += 1

    def _numbered(self) -> list[tuple[int, str]]:
        return [(n, text) for n, text in enumerate(self.entries, 1) if text]


def usage(busy: int) -> Usage:
    sizes = dict.fromkeys(("mem_used", "mem_total", "mem_cache", "disk_used", "disk_total"), 1)
    return Usage(cpu_count=2, cpu_busy=busy, cpu_ticks=2 * busy, **sizes)


def record(sandbox_id: str = "iabc", **changes: object) -> SandboxRecord:
    made = SandboxRecord(
        sandbox_id=sandbox_id,
        execution_id="run-1",
        template_id="t",
        build_id="b",
        slot=1,
        vcpu=2,
        ram_mb=512,
        disk_mb=1024,
        egress=OPEN,
        start_time=50.0,
        end_time=4e9,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class World:
    """One directory, and programs after one another that use it."""

    directory: Path
    guests: dict[str, StandInGuest] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for_quiet: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.quiet.set()

    @contextlib.asynccontextmanager
    async def program(self, timing: Timing = SELDOM) -> AsyncIterator[Telemetry]:
        store = TelemetryStore(self.directory, self.retention)
        telemetry = Telemetry(store, lambda one: self.guests[one.sandbox_id], timing, self._quiet)
        try:
            yield telemetry
        finally:
            await telemetry.close()

    async def _quiet(self) -> None:
        self.waits_for_quiet.set()
        await self.quiet.wait()

    def guest(self, sandbox_id: str = "iabc") -> StandInGuest:
        return self.guests.setdefault(sandbox_id, StandInGuest())


async def messages(telemetry: Telemetry, query: LogQuery = ALL) -> list[str]:
    return [entry.message for entry in await telemetry.logs("iabc", query)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.005)


ANSWERED_USAGE = {
    "cpu_count": 2,
    "cpu_busy": 1,
    "cpu_ticks": 2,
    "mem_used": 3,
    "mem_total": 4,
    "mem_cache": 5,
    "disk_used": 6,
    "disk_total": 7,
}
ANSWERED_ENTRY: list[Any] = [1, 100.0, "info", "process", "started", {"pid": "1"}]


def answer(**changes: Any) -> bytes:
    whole = {
        "metrics": ANSWERED_USAGE,
        "stream": "ab12",
        "more": False,
        "entries": [ANSWERED_ENTRY],
        **changes,
    }
    return json.dumps(whole).encode()
