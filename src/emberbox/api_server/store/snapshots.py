"""Snapshots as clients see them: a template, a tag, the build that it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, exists, or_, select

from emberbox.api_server.records.lifecycle import LIVE
from emberbox.api_server.store.rows import Snapshot
from emberbox.api_server.store.tables import (
    sandboxes,
    template_builds,
    template_names,
    template_tags,
    templates,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store.database import Database

Place = tuple["datetime", str, str]
"""When a snapshot was made, its template and its tag: the order of lists."""


class SnapshotStore:
    """Tags of a team's templates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        team_id: str,
        *,
        limit: int,
        after: Place | None = None,
        origin_sandbox_id: str | None = None,
        name: str | None = None,
        tag: str | None = None,
    ) -> list[Snapshot]:
        """Newest first, beginning behind `after`. `name` has its namespace."""
        query = (
            select(
                template_tags.c.template_id,
                template_names.c.name,
                template_tags.c.tag,
                template_tags.c.created_at,
            )
            .join(templates, templates.c.template_id == template_tags.c.template_id)
            .join(template_builds, template_builds.c.build_id == template_tags.c.build_id)
            .outerjoin(template_names, template_names.c.template_id == template_tags.c.template_id)
            .where(templates.c.team_id == team_id)
        )
        if origin_sandbox_id is not None:
            query = query.where(template_builds.c.origin_sandbox_id == origin_sandbox_id)
        if name is not None:
            query = query.where(template_names.c.name == name)
        if tag is not None:
            query = query.where(template_tags.c.tag == tag)
        if after is not None:
            query = query.where(_behind(after))
        query = query.order_by(
            template_tags.c.created_at.desc(),
            template_tags.c.template_id.asc(),
            template_tags.c.tag.asc(),
        ).limit(limit)
        async with self._database.read() as connection:
            return [Snapshot(*row) for row in await connection.execute(query)]

    async def delete(self, template_id: str, tag: str | None) -> bool | None:
        """Take away a tag, or all of them: what they meant is swept.

        None when there is none; False while sandboxes use what would go, and then it stays.
        """
        mine = template_tags.c.template_id == template_id
        if tag is not None:
            mine = and_(mine, template_tags.c.tag == tag)
        async with self._database.write(alone="templates") as connection:
            if await connection.scalar(select(template_tags.c.tag).where(mine).limit(1)) is None:
                return None
            if await connection.scalar(select(_used(mine))):
                return False
            await connection.execute(delete(template_tags).where(mine))
            await _forget_name_without_tags(connection, template_id)
            return True


def _behind(after: Place) -> ColumnElement[bool]:
    made, template_id, tag = after
    created, by_id = template_tags.c.created_at, template_tags.c.template_id
    return or_(
        created < made,
        and_(created == made, by_id > template_id),
        and_(created == made, by_id == template_id, template_tags.c.tag > tag),
    )


def _used(tags: ColumnElement[bool]) -> ColumnElement[bool]:
    builds = select(template_tags.c.build_id).where(tags)
    return exists().where(sandboxes.c.build_id.in_(builds), sandboxes.c.state.in_(LIVE))


async def _forget_name_without_tags(connection: AsyncConnection, template_id: str) -> None:
    left = exists().where(template_tags.c.template_id == template_id)
    await connection.execute(
        delete(template_names).where(template_names.c.template_id == template_id, ~left)
    )
