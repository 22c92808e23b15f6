"""Records of sandboxes: reservation, transitions by compare-and-set, look-ups."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from emberbox.api_server.errors import SandboxNotFoundError
from emberbox.api_server.records.lifecycle import COUNTED, LIVE, State, Transition
from emberbox.api_server.store.builds import refuse_deleted_build
from emberbox.api_server.store.events import insert_entry
from emberbox.api_server.store.quota import check_node, check_quota
from emberbox.api_server.store.rows import Sandbox
from emberbox.api_server.store.tables import sandboxes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Row, Select, Update
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.records.history import Entry
    from emberbox.api_server.records.lifecycle import Paused
    from emberbox.api_server.store.database import Database

_REASON_LENGTH = 512

_MOVED = ("node_id", "execution_id", "build_id", "vcpu", "ram_mb", "disk_mb", "envd_version")
"""What differs between nodes: each has its own build of a template."""


class SandboxStore:
    """Rows of `sandboxes`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, wanted: Sandbox, entry: Entry) -> Sandbox | None:
        """Check the quota and insert `wanted` and its `entry` in the event log, in one transaction.

        Answers None, or the row that already holds the same idempotency key; then nothing was
        inserted. Raises QuotaExceededError, BadRequestError and NodeFullError.
        """
        try:
            return await self._reserve(wanted, entry)
        except IntegrityError:
            # Two servers inserted the same key at once: the index let one in.
            return await self._reserve(wanted, entry)

    async def _reserve(self, wanted: Sandbox, entry: Entry) -> Sandbox | None:
        async with self._database.write() as connection:
            if wanted.idempotency_key is not None:
                holder = await _holder(connection, wanted.team_id, wanted.idempotency_key)
                if holder is not None:
                    return holder
            await check_quota(connection, wanted)
            await check_node(connection, wanted)
            await refuse_deleted_build(connection, wanted)
            await connection.execute(insert(sandboxes).values(**asdict(wanted)))
            await insert_entry(connection, entry)
            return None

    async def resume(
        self, wanted: Sandbox, transition: Transition, before: str, entry: Entry
    ) -> bool:
        """Check the quota and begin `wanted`'s run on its node, in one transaction, as
        `transition` says.

        False when the row is no longer in the run `before`, as the transition found it.
        Raises QuotaExceededError, BadRequestError and NodeFullError.
        """
        values = {
            "node_id": wanted.node_id,
            "state": transition.after,
            "execution_id": transition.new_execution_id,
            "started_at": wanted.started_at,
            "end_at": wanted.end_at,
            "auto_pause": wanted.auto_pause,
        }
        change = _change(wanted.sandbox_id, before, {transition.before}, values)
        async with self._database.write() as connection:
            await check_quota(connection, wanted)
            await check_node(connection, wanted)
            return await _write(connection, change, entry)

    async def own(self, team_id: str, sandbox_id: str) -> Sandbox:
        """A team's row, whatever its state. Raises SandboxNotFoundError."""
        row = await self.get(sandbox_id)
        if row is None or row.team_id != team_id:
            raise SandboxNotFoundError(sandbox_id)
        return row

    async def get(self, sandbox_id: str) -> Sandbox | None:
        """The row of this id, whatever its state."""
        rows = await self._select(select(sandboxes).where(sandboxes.c.sandbox_id == sandbox_id))
        return rows[0] if rows else None

    async def several(self, sandbox_ids: Collection[str]) -> list[Sandbox]:
        """The rows of these ids that are there, whatever their states."""
        return await self._select(select(sandboxes).where(sandboxes.c.sandbox_id.in_(sandbox_ids)))

    async def live_on(self, node_id: str) -> list[Sandbox]:
        """What should be on a node."""
        return await self._select(
            select(sandboxes).where(sandboxes.c.node_id == node_id, sandboxes.c.state.in_(LIVE))
        )

    async def counted_elsewhere(self, node_ids: Collection[str]) -> list[Sandbox]:
        """Rows that hold quota, and whose node is none of these."""
        return await self._select(
            select(sandboxes).where(
                sandboxes.c.node_id.not_in(node_ids), sandboxes.c.state.in_(COUNTED)
            )
        )

    async def counts(self) -> dict[State, int]:
        """How many live rows there are, by state."""
        query = (
            select(sandboxes.c.state, func.count())
            .where(sandboxes.c.state.in_(LIVE))
            .group_by(sandboxes.c.state)
        )
        async with self._database.read() as connection:
            return {State(state): count for state, count in await connection.execute(query)}

    async def page(
        self,
        team_id: str,
        states: Collection[State],
        *,
        limit: int,
        descending: bool = True,
        after: tuple[datetime, str] | None = None,
        started_after: datetime | None = None,
        template_id: str | None = None,
    ) -> list[Sandbox]:
        """Rows of a team ordered by start, ties by id ascending, beginning behind `after`."""
        started, by_id = sandboxes.c.started_at, sandboxes.c.sandbox_id
        query = select(sandboxes).where(
            sandboxes.c.team_id == team_id, sandboxes.c.state.in_(states)
        )
        if started_after is not None:
            query = query.where(started > started_after)
        if template_id is not None:
            shown = func.coalesce(sandboxes.c.shown_template_id, sandboxes.c.template_id)
            query = query.where(shown == template_id)
        if after is not None:
            query = query.where(
                or_(started < after[0], and_(started == after[0], by_id > after[1]))
                if descending
                else tuple_(started, by_id) > tuple_(*after)
            )
        order = started.desc() if descending else started.asc()
        return await self._select(query.order_by(order, by_id.asc()).limit(limit))

    async def change(
        self,
        sandbox_id: str,
        execution_id: str,
        transition: Transition,
        now: datetime,
        entry: Entry | None,
    ) -> bool:
        """Write a transition and its entry in the event log; False, and nothing is written, when
        the row is no longer as the transition found it."""
        values: dict[str, object] = {"state": transition.after}
        if transition.reason is not None:
            values["end_reason"] = _text(transition.reason)
        if transition.paused is not None:
            values |= _paused_values(transition.paused)
        values["ended_at"] = None if transition.after in LIVE else now
        if transition.frees_idempotency_key:
            values["idempotency_key"] = None
        return await self._update(sandbox_id, execution_id, {transition.before}, values, entry)

    async def move(self, before: Sandbox, after: Sandbox, entry: Entry) -> bool:
        """Point a reservation that its node refused at another node, as another run.

        Raises NodeFullError.
        """
        values = {name: getattr(after, name) for name in _MOVED}
        change = _change(before.sandbox_id, before.execution_id, {State.CREATING}, values)
        async with self._database.write() as connection:
            await check_node(connection, after)
            return await _write(connection, change, entry)

    async def relocate(self, row: Sandbox, node_id: str) -> bool:
        """A paused sandbox's files are on this node, wherever it was thought to be."""
        return await self._update(
            row.sandbox_id, row.execution_id, {State.PAUSED}, {"node_id": node_id}
        )

    async def set_deadline(
        self, sandbox_id: str, execution_id: str, end_at: datetime, entry: Entry | None = None
    ) -> bool:
        """Copy the deadline that the orchestrator accepted."""
        return await self._update(sandbox_id, execution_id, LIVE, {"end_at": end_at}, entry)

    async def set_egress(self, row: Sandbox, entry: Entry) -> bool:
        """Copy what the orchestrator accepted: options with the network in them."""
        values = {"options": row.options, "allow_internet_access": row.allow_internet_access}
        return await self._update(row.sandbox_id, row.execution_id, LIVE, values, entry)

    async def note(self, row: Sandbox, notice: str) -> None:
        """Keep what the node said of the start of this run; nothing when it is empty."""
        values = {"notice": _text(notice) or None}
        await self._update(row.sandbox_id, row.execution_id, LIVE, values)

    async def forget_ended(self, before: datetime) -> int:
        """Delete history that ended before a moment; how many rows."""
        old = delete(sandboxes).where(sandboxes.c.state.not_in(LIVE), sandboxes.c.ended_at < before)
        async with self._database.write() as connection:
            return (await connection.execute(old)).rowcount

    async def _update(
        self,
        sandbox_id: str,
        execution_id: str,
        states: Collection[State],
        values: Mapping[str, object],
        entry: Entry | None = None,
    ) -> bool:
        change = _change(sandbox_id, execution_id, states, values)
        async with self._database.write() as connection:
            return await _write(connection, change, entry)

    async def _select(self, query: Select[tuple[object, ...]]) -> list[Sandbox]:
        async with self._database.read() as connection:
            return [_sandbox_of(row) for row in await connection.execute(query)]


def _text(value: str) -> str:
    """What the columns hold: Postgres takes no NUL, and a guest's console may have one."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_REASON_LENGTH]


async def _write(connection: AsyncConnection, change: Update, entry: Entry | None) -> bool:
    """Whether the change found its row; the entry goes with it."""
    written = (await connection.execute(change)).rowcount == 1
    if written and entry is not None:
        await insert_entry(connection, entry)
    return written


def _paused_values(paused: Paused) -> dict[str, object]:
    wanted = case((sandboxes.c.auto_pause, sandboxes.c.auto_pause_memory), else_=True)
    return {
        "paused_at": paused.at,
        "paused_memory": wanted if paused.memory is None else paused.memory,
        "end_reason": None,
    }


def _change(
    sandbox_id: str, execution_id: str, states: Collection[State], values: Mapping[str, object]
) -> Update:
    return (
        update(sandboxes)
        .where(
            sandboxes.c.sandbox_id == sandbox_id,
            sandboxes.c.execution_id == execution_id,
            sandboxes.c.state.in_(states),
        )
        .values(**values)
    )


async def _holder(connection: AsyncConnection, team_id: str, key: str) -> Sandbox | None:
    query = select(sandboxes).where(
        sandboxes.c.team_id == team_id, sandboxes.c.idempotency_key == key
    )
    row = (await connection.execute(query)).first()
    return _sandbox_of(row) if row else None


def _sandbox_of(row: Row[tuple[object, ...]]) -> Sandbox:
    values = dict(row._mapping)
    return Sandbox(**{**values, "state": State(values["state"])})
