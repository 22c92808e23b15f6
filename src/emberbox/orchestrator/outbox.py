"""Outcomes that wait on the host until an API server has taken them.

A numbered table in SQLite: an outcome is durable before the sandbox's record is removed, and is
kept through restarts until it is acknowledged.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator import metrics

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outcomes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sandbox_id TEXT NOT NULL,
    execution_id TEXT NOT NULL UNIQUE,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """How one run of a sandbox ended. `at` is in unix seconds."""

    number: int
    sandbox_id: str
    execution_id: str
    outcome: str
    reason: str
    at: float


class Outbox:
    """The outcomes of this host. Writes are inline: SQLite takes them in microseconds to a few
    milliseconds, and an outcome must be down before its sandbox's files go."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(_SCHEMA)
        self._count()
        self.added = asyncio.Event()
        """Set by the next addition, and then replaced by a new one."""

    def add(self, sandbox_id: str, execution_id: str, outcome: str, reason: str, at: float) -> None:
        """Keep an outcome. A second one for the same run changes nothing: the first is true."""
        self._database.execute(
            "INSERT INTO outcomes (sandbox_id, execution_id, outcome, reason, at)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (execution_id) DO NOTHING",
            (sandbox_id, execution_id, outcome, reason, at),
        )
        self._count()
        self.added.set()
        self.added = asyncio.Event()

    def after(self, number: int) -> list[OutboxEntry]:
        """What waits with a higher number, in order, a thousand at most."""
        rows = self._database.execute(
            "SELECT number, sandbox_id, execution_id, outcome, reason, at FROM outcomes"
            " WHERE number > ? ORDER BY number LIMIT 1000",
            (number,),
        )
        return [OutboxEntry(*row) for row in rows]

    def acknowledge(self, number: int) -> None:
        """Forget everything up to this number."""
        self._database.execute("DELETE FROM outcomes WHERE number <= ?", (number,))
        self._count()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _count(self) -> None:
        (count,) = self._database.execute("SELECT count(*) FROM outcomes").fetchone()
        metrics.OUTBOX.set(count)
