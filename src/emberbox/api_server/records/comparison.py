"""What a node has against what the database says it should have; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emberbox.api_server.records.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from emberbox.api_server.store.rows import Sandbox


@dataclass(frozen=True, slots=True)
class Listed:
    """One sandbox in a node's list of what it runs."""

    sandbox_id: str
    execution_id: str
    running: bool
    """False while it starts, pauses or ends."""
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One sandbox in a node's list of what is paused there."""

    sandbox_id: str
    execution_id: str
    """The run that was paused: a resume that failed does not change it."""
    at: datetime
    memory: bool
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that a node has. What ran is asked for first: a sandbox whose pause ends between the
    two questions is in both."""

    running: tuple[Listed, ...] = ()
    paused: tuple[Kept, ...] = ()

    def has(self, row: Sandbox) -> bool:
        """Whether anything of a record is there."""
        return any(one.execution_id == row.execution_id for one in self.running) or any(
            one.sandbox_id == row.sandbox_id for one in self.paused
        )


@dataclass(slots=True)
class Findings:
    """What to do about the differences."""

    started: list[Sandbox] = field(default_factory=list)
    paused: list[tuple[Sandbox, Kept]] = field(default_factory=list)
    still_running: list[Sandbox] = field(default_factory=list)
    """Asked to pause long ago, and they run."""
    lost: list[Sandbox] = field(default_factory=list)
    still_killing: list[Sandbox] = field(default_factory=list)
    strangers: list[Listed | Kept] = field(default_factory=list)
    """Seen for the first time: to be logged."""
    orphans: list[Listed | Kept] = field(default_factory=list)
    """Strangers of our own cluster that stayed unknown for the whole grace."""


@dataclass(slots=True)
class Comparison:
    """Compares pass by pass and remembers since when something has been wrong."""

    cluster_id: str
    lost_grace: timedelta
    orphan_grace: timedelta
    create_timeout: timedelta
    pause_timeout: timedelta
    _wrong_since: dict[str, datetime] = field(default_factory=dict)
    """By execution id: not there, or not yet what it should become."""
    _stranger_since: dict[str, datetime] = field(default_factory=dict)

    def compare(self, rows: Iterable[Sandbox], found: Inventory, now: datetime) -> Findings:
        """`rows` are the live ones of the node, read before it was asked for what it has."""
        findings = Findings()
        running = {one.execution_id: one for one in found.running}
        paused = {one.sandbox_id: one for one in found.paused}
        wanted = {row.execution_id: row for row in rows}
        wrong = {
            row.execution_id
            for row in wanted.values()
            if not self._check(row, running.get(row.execution_id), paused, findings, now)
        }
        strange = self._strangers(wanted, found)
        for one in strange:
            self._check_stranger(one, findings, now)
        _keep(self._wrong_since, wrong)
        _keep(self._stranger_since, {_key(one) for one in strange})
        return findings

    def _check(
        self,
        row: Sandbox,
        runs: Listed | None,
        paused: Mapping[str, Kept],
        findings: Findings,
        now: datetime,
    ) -> bool:
        """Whether it is as it should be, or something is done about it at once."""
        kept = paused.get(row.sandbox_id)
        if row.state is State.KILLING:
            findings.still_killing.append(row)
        elif runs is not None:
            return self._check_running(row, runs, findings, now)
        elif kept is None:
            if self._lasts(row, self.lost_grace, now) and not self._may_be_starting(row, now):
                findings.lost.append(row)
            return False
        elif not (_is_known(row, kept) or self._may_be_starting(row, now)):
            findings.paused.append((row, kept))
        return True

    def _check_running(self, row: Sandbox, runs: Listed, findings: Findings, now: datetime) -> bool:
        if runs.running and row.state in (State.CREATING, State.RESUMING):
            findings.started.append(row)
        if runs.running and row.state is State.PAUSING:
            if self._lasts(row, self.pause_timeout, now):
                findings.still_running.append(row)
            return False
        return True

    def _may_be_starting(self, row: Sandbox, now: datetime) -> bool:
        starts = row.state in (State.CREATING, State.RESUMING)
        return starts and now - row.started_at < self.create_timeout

    def _lasts(self, row: Sandbox, grace: timedelta, now: datetime) -> bool:
        return now - self._wrong_since.setdefault(row.execution_id, now) >= grace

    def _strangers(self, wanted: Mapping[str, Sandbox], found: Inventory) -> list[Listed | Kept]:
        known = {row.sandbox_id for row in wanted.values()}
        return [
            *(one for one in found.running if one.execution_id not in wanted),
            *(one for one in found.paused if one.sandbox_id not in known),
        ]

    def _check_stranger(self, one: Listed | Kept, findings: Findings, now: datetime) -> None:
        # A row may have been reserved after the rows were read, so nothing is done at first.
        if _key(one) not in self._stranger_since:
            self._stranger_since[_key(one)] = now
            findings.strangers.append(one)
        since = self._stranger_since[_key(one)]
        if now - since >= self.orphan_grace and one.cluster_id == self.cluster_id:
            findings.orphans.append(one)


def _is_known(row: Sandbox, kept: Kept) -> bool:
    return row.state is State.PAUSED and row.paused_memory == kept.memory


def _key(one: Listed | Kept) -> str:
    return f"{one.execution_id} {one.sandbox_id}"


def _keep(times: dict[str, datetime], ids: Iterable[str]) -> None:
    kept = set(ids)
    for gone in times.keys() - kept:
        del times[gone]
