"""What a node has against what the database says it should have; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emberbox.api_server.records.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from emberbox.api_server.store.rows import Sandbox


@dataclass(frozen=True, slots=True)
class Listed:
    """One sandbox in a node's list."""

    sandbox_id: str
    execution_id: str
    running: bool
    cluster_id: str


@dataclass(slots=True)
class Findings:
    """What to do about the differences."""

    started: list[Sandbox] = field(default_factory=list)
    lost: list[Sandbox] = field(default_factory=list)
    still_killing: list[Sandbox] = field(default_factory=list)
    strangers: list[Listed] = field(default_factory=list)
    """Seen for the first time: to be logged."""
    orphans: list[Listed] = field(default_factory=list)
    """Strangers of our own cluster that stayed unknown for the whole grace."""


@dataclass(slots=True)
class Comparison:
    """Compares pass by pass and remembers since when something has been wrong."""

    cluster_id: str
    lost_grace: timedelta
    orphan_grace: timedelta
    create_timeout: timedelta
    _absent_since: dict[str, datetime] = field(default_factory=dict)
    _stranger_since: dict[str, datetime] = field(default_factory=dict)

    def compare(self, rows: Iterable[Sandbox], listed: Iterable[Listed], now: datetime) -> Findings:
        """`rows` are the live ones of the node, read before it was asked for `listed`."""
        findings = Findings()
        present = {one.execution_id: one for one in listed}
        wanted = {row.execution_id: row for row in rows}
        for row in wanted.values():
            self._check_row(row, present.get(row.execution_id), findings, now)
        for one in present.values():
            if one.execution_id not in wanted:
                self._check_stranger(one, findings, now)
        _keep(self._absent_since, wanted.keys() - present.keys())
        _keep(self._stranger_since, present.keys() - wanted.keys())
        return findings

    def _check_row(
        self, row: Sandbox, found: Listed | None, findings: Findings, now: datetime
    ) -> None:
        if row.state is State.KILLING:
            findings.still_killing.append(row)
        elif found is None:
            since = self._absent_since.setdefault(row.execution_id, now)
            if now - since >= self.lost_grace and not self._may_be_starting(row, now):
                findings.lost.append(row)
        elif found.running and row.state is State.CREATING:
            findings.started.append(row)

    def _may_be_starting(self, row: Sandbox, now: datetime) -> bool:
        return row.state is State.CREATING and now - row.started_at < self.create_timeout

    def _check_stranger(self, one: Listed, findings: Findings, now: datetime) -> None:
        # A row may have been reserved after the rows were read, so nothing is done at first.
        if one.execution_id not in self._stranger_since:
            self._stranger_since[one.execution_id] = now
            findings.strangers.append(one)
        since = self._stranger_since[one.execution_id]
        if now - since >= self.orphan_grace and one.cluster_id == self.cluster_id:
            findings.orphans.append(one)


def _keep(times: dict[str, datetime], ids: Iterable[str]) -> None:
    kept = set(ids)
    for gone in times.keys() - kept:
        del times[gone]
