"""The event log: written with what it tells of, in the same transaction."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from emberbox.api_server import metrics
from emberbox.api_server.records.history import Entry, What
from emberbox.api_server.records.lifecycle import LIVE
from emberbox.api_server.store.tables import sandbox_events, sandboxes

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Delete, Row, ScalarSelect, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store.database import Database

_MOST_UPDATES = 100
"""Moved deadlines that are kept of one sandbox: clients may move them as often as they like."""


class EventStore:
    """Rows of `sandbox_events`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, entry: Entry) -> None:
        """Something that changed no record."""
        async with self._database.write() as connection:
            await insert_entry(connection, entry)

    async def page(
        self,
        *,
        team_id: str | None = None,
        sandbox_id: str | None = None,
        what: Collection[What] | None = None,
        limit: int,
        offset: int = 0,
        oldest_first: bool = False,
    ) -> list[Entry]:
        """Entries of a sandbox, or of a team, or all there are."""
        query = select(*_COLUMNS)
        if team_id is not None:
            query = query.where(sandbox_events.c.team_id == team_id)
        if sandbox_id is not None:
            query = query.where(sandbox_events.c.sandbox_id == sandbox_id)
        if what is not None:
            query = query.where(sandbox_events.c.what.in_(what))
        number = sandbox_events.c.number
        query = query.order_by(number.asc() if oldest_first else number.desc())
        return await self._select(query.limit(limit).offset(offset))

    async def forget(self, before: datetime) -> int:
        """Delete what happened before a moment to sandboxes that are over; how many entries."""
        live = select(sandboxes.c.sandbox_id).where(sandboxes.c.state.in_(LIVE))
        old = delete(sandbox_events).where(
            sandbox_events.c.at < before, sandbox_events.c.sandbox_id.not_in(live)
        )
        async with self._database.write() as connection:
            return (await connection.execute(old)).rowcount

    async def _select(self, query: Select[tuple[object, ...]]) -> list[Entry]:
        async with self._database.read() as connection:
            return [_entry_of(row) for row in await connection.execute(query)]


_COLUMNS = tuple(column for column in sandbox_events.c if column.name != "number")


async def insert_entry(connection: AsyncConnection, entry: Entry) -> None:
    """Write an entry in the transaction that does what it tells of."""
    values = asdict(entry)
    settles: What | None = values.pop("settles")
    if settles is not None:
        values["actor"] = func.coalesce(_actor_of(entry, settles), entry.actor)
    await connection.execute(insert(sandbox_events).values(**values))
    metrics.count_event(entry.what)
    if entry.what is What.UPDATED:
        await connection.execute(_older_updates(entry.sandbox_id))


def _actor_of(entry: Entry, what: What) -> ScalarSelect[str]:
    """Who wanted what is done now: it may have been hours ago, and another program's business."""
    return (
        select(sandbox_events.c.actor)
        .where(
            sandbox_events.c.sandbox_id == entry.sandbox_id,
            sandbox_events.c.execution_id == entry.execution_id,
            sandbox_events.c.what == what,
        )
        .order_by(sandbox_events.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )


def _older_updates(sandbox_id: str) -> Delete:
    updates = select(sandbox_events.c.number).where(
        sandbox_events.c.sandbox_id == sandbox_id, sandbox_events.c.what == What.UPDATED
    )
    newest = updates.order_by(sandbox_events.c.number.desc()).limit(_MOST_UPDATES)
    return delete(sandbox_events).where(
        sandbox_events.c.number.in_(updates), sandbox_events.c.number.not_in(newest)
    )


def _entry_of(row: Row[tuple[object, ...]]) -> Entry:
    values = dict(row._mapping)
    return Entry(**{**values, "what": What(values["what"])})
