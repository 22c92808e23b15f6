"""Teams and their limits."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from emberbox.api_server.records.lifecycle import LIVE
from emberbox.api_server.store.rows import Limits, Team
from emberbox.api_server.store.tables import sandboxes, teams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store.database import Database


class TeamStore:
    """Rows of `teams`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, limits: Limits, now: datetime) -> Team | None:
        """Make a team; None when the name is taken."""
        async with self._database.write(alone="teams") as connection:
            if await find_team(connection, name):
                return None
            return await insert_team(connection, name, limits, now)

    async def find(self, name: str) -> Team | None:
        """The team of this name or id."""
        async with self._database.read() as connection:
            return await find_team(connection, name)

    async def list(self) -> list[Team]:
        """All teams, by name."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(teams).order_by(teams.c.name))
            return [team_of(row) for row in rows]

    async def set_limits(self, team_id: str, changes: dict[str, int | None]) -> None:
        """Change the limits named; None is unlimited. Holds for the next create."""
        if not changes:
            return
        async with self._database.write() as connection:
            await connection.execute(
                update(teams).where(teams.c.team_id == team_id).values(**changes)
            )

    async def set_node_labels(self, team_id: str, labels: Mapping[str, str]) -> None:
        """What a node must have to be given its sandboxes from now on."""
        change = update(teams).where(teams.c.team_id == team_id).values(node_labels=dict(labels))
        async with self._database.write() as connection:
            await connection.execute(change)

    async def delete(self, team_id: str) -> int:
        """Delete a team with its keys and history; when sandboxes live, only count them."""
        async with self._database.write() as connection:
            await lock_team(connection, team_id)
            live = await connection.scalar(
                select(func.count())
                .select_from(sandboxes)
                .where(sandboxes.c.team_id == team_id, sandboxes.c.state.in_(LIVE))
            )
            if not live:
                await connection.execute(delete(teams).where(teams.c.team_id == team_id))
            return live or 0


async def any_team(connection: AsyncConnection) -> bool:
    """Whether there is a team at all."""
    return await connection.scalar(select(teams.c.team_id).limit(1)) is not None


async def find_team(connection: AsyncConnection, name: str) -> Team | None:
    """The team of this name or id, within the caller's transaction."""
    query = select(teams).where((teams.c.name == name) | (teams.c.team_id == name))
    row = (await connection.execute(query)).first()
    return team_of(row) if row else None


async def lock_team(connection: AsyncConnection, team_id: str) -> Team | None:
    """The team, to be held until the caller's transaction ends; None when it was deleted."""
    query = select(teams).where(teams.c.team_id == team_id).with_for_update(key_share=True)
    row = (await connection.execute(query)).first()
    return team_of(row) if row else None


async def insert_team(
    connection: AsyncConnection, name: str, limits: Limits, now: datetime
) -> Team:
    """Insert within the caller's transaction."""
    team = Team(str(uuid.uuid4()), name, now, limits)
    await connection.execute(
        insert(teams).values(team_id=team.team_id, name=name, created_at=now, **asdict(limits))
    )
    return team


def team_of(row: Row[tuple[object, ...]]) -> Team:
    """A team from a row that has the columns of `teams`."""
    values = row._mapping
    return Team(
        team_id=values[teams.c.team_id],
        name=values[teams.c.name],
        created_at=values[teams.c.created_at],
        limits=Limits(**{name: values[teams.c[name]] for name in Limits.names()}),
        node_labels=values[teams.c.node_labels] or {},
    )
