"""Nodes as they told of themselves, and who looks after each."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from emberbox.api_server.records.lifecycle import COUNTED
from emberbox.api_server.store.rows import NodeRecord, NodeUsage
from emberbox.api_server.store.tables import node_templates, nodes, sandboxes

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Row, Update

    from emberbox.api_server.store.database import Database

_NOT_ITS_OWN = frozenset({"node_id", "draining", "registered_at", "keeper_id", "kept_until"})
"""What a node's own word does not change."""


class NodeStore:
    """Rows of `nodes`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, record: NodeRecord) -> bool:
        """Keep a node's word about itself; whether it is new."""
        values = {name: value for name, value in asdict(record).items() if name not in _NOT_ITS_OWN}
        change = _update(record.node_id).values(**values)
        async with self._database.write() as connection:
            if (await connection.execute(change)).rowcount:
                return False
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(nodes).values(**asdict(record)))
        except IntegrityError:  # another API server had its first word, too
            return False
        return True

    async def all(self) -> list[NodeRecord]:
        """Every one, by id."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(nodes).order_by(nodes.c.node_id))
            return [_record_of(row) for row in rows]

    async def get(self, node_id: str) -> NodeRecord | None:
        """The node of this id."""
        async with self._database.read() as connection:
            query = select(nodes).where(nodes.c.node_id == node_id)
            row = (await connection.execute(query)).first()
            return _record_of(row) if row else None

    async def usage(self) -> dict[str, NodeUsage]:
        """What the records take of each node that has any."""
        query = (
            select(
                sandboxes.c.node_id,
                func.count(),
                func.sum(sandboxes.c.vcpu),
                func.sum(sandboxes.c.ram_mb),
            )
            .where(sandboxes.c.state.in_(COUNTED))
            .group_by(sandboxes.c.node_id)
        )
        async with self._database.read() as connection:
            return {row[0]: NodeUsage(*row[1:]) for row in await connection.execute(query)}

    async def set_draining(self, node_id: str, *, draining: bool) -> bool:
        """Let it take no more sandboxes, or take some again; False when there is no such node."""
        async with self._database.write() as connection:
            change = _update(node_id).values(draining=draining)
            return (await connection.execute(change)).rowcount == 1

    async def forget(self, node_id: str) -> bool:
        """Delete it; False when there is no such node. When it speaks again it is a new one."""
        async with self._database.write() as connection:
            await connection.execute(
                delete(node_templates).where(node_templates.c.node_id == node_id)
            )
            gone = delete(nodes).where(nodes.c.node_id == node_id)
            return (await connection.execute(gone)).rowcount == 1

    async def keep(self, node_id: str, keeper_id: str, now: datetime, until: datetime) -> bool:
        """Become, or stay, the API server that looks after a node; False when another does."""
        free = or_(
            nodes.c.keeper_id.is_(None),
            nodes.c.keeper_id == keeper_id,
            nodes.c.kept_until < now,
        )
        change = _update(node_id).where(free).values(keeper_id=keeper_id, kept_until=until)
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def leave(self, keeper_id: str) -> None:
        """Look after none any more."""
        change = update(nodes).where(nodes.c.keeper_id == keeper_id)
        async with self._database.write() as connection:
            await connection.execute(change.values(keeper_id=None, kept_until=None))


def _update(node_id: str) -> Update:
    return update(nodes).where(nodes.c.node_id == node_id)


def _record_of(row: Row[tuple[object, ...]]) -> NodeRecord:
    return NodeRecord(**row._mapping)
