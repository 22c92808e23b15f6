"""Builds that checkpoints made: from the first word to their removal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, exists, insert, or_, select, update

from emberbox.api_server.errors import BadRequestError, TemplateNotFoundError
from emberbox.api_server.records.lifecycle import LIVE
from emberbox.api_server.store.rows import DEFAULT_TAG, Build, BuildState
from emberbox.api_server.store.tables import (
    sandboxes,
    template_builds,
    template_names,
    template_tags,
    templates,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Delete, Row, Update
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store.database import Database
    from emberbox.api_server.store.rows import Sandbox

_IN_USE = exists().where(
    sandboxes.c.build_id == template_builds.c.build_id, sandboxes.c.state.in_(LIVE)
)
"""Whether a sandbox, running or paused, stands on a build."""

_TAGGED = exists().where(template_tags.c.build_id == template_builds.c.build_id)


class BuildStore:
    """Rows of `template_builds`, and what hangs on them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, build: Build, team_id: str, name: str | None) -> str:
        """Write it down before it is made; the id of its template, which `name` may have already.

        Raises BadRequestError when `name` is another team's.
        """
        async with self._database.write(alone="templates") as connection:
            template_id = await _owned(connection, name, team_id) if name else None
            if template_id is None:
                template_id = build.template_id
                await _insert_template(connection, build, team_id, name)
            values = {**asdict(build), "template_id": template_id}
            await connection.execute(insert(template_builds).values(**values))
            return template_id

    async def finish(self, build: Build, name: str | None, tag: str, now: datetime) -> None:
        """It is whole, and `tag` means it from now on."""
        async with self._database.write(alone="templates") as connection:
            await connection.execute(
                _update(
                    build,
                    state=BuildState.READY,
                    memory_bytes=build.memory_bytes,
                    disk_bytes=build.disk_bytes,
                )
            )
            await connection.execute(_delete_tag(build.template_id, tag))
            await connection.execute(
                insert(template_tags).values(
                    template_id=build.template_id,
                    tag=tag,
                    build_id=build.build_id,
                    created_at=now,
                )
            )
            if name is not None and await _holder(connection, name) is None:
                # Its last tag was deleted meanwhile, and the name with it.
                await _insert_name(connection, name, build.template_id)
            if tag == DEFAULT_TAG:
                await connection.execute(_make_default(build, now))

    async def release(self, build: Build) -> None:
        """What was to be made of an untagged one is made: the sweep may have it."""
        async with self._database.write() as connection:
            await connection.execute(_update(build, state=BuildState.READY))

    async def tagged(self, template_id: str, tag: str) -> Build | None:
        """The build that a tag means."""
        query = (
            select(template_builds)
            .join(template_tags, template_tags.c.build_id == template_builds.c.build_id)
            .where(template_tags.c.template_id == template_id, template_tags.c.tag == tag)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
            return _build_of(row) if row else None

    async def garbage(self, made_before: datetime) -> list[Build]:
        """Builds that no tag means and no sandbox stands on.

        Among those still being made only the ones that were begun before `made_before`: whoever
        made them is gone.
        """
        query = select(template_builds).where(_is_garbage(made_before))
        async with self._database.read() as connection:
            return [_build_of(row) for row in await connection.execute(query)]

    async def condemn(self, build: Build, made_before: datetime) -> bool:
        """Let nothing be made of it any more; False when it is no garbage after all."""
        mine = template_builds.c.build_id == build.build_id
        change = _update(build, state=BuildState.DELETING).where(_is_garbage(made_before))
        async with self._database.write() as connection:
            # First alone: whoever is about to use it holds it, and is seen by the next statement.
            await connection.execute(select(template_builds.c.state).where(mine).with_for_update())
            return (await connection.execute(change)).rowcount == 1

    async def forget(self, build: Build) -> None:
        """Its node has removed it, or never had it. Its template goes with its last build."""
        others = exists().where(template_builds.c.template_id == templates.c.template_id)
        async with self._database.write(alone="templates") as connection:
            await connection.execute(
                delete(template_builds).where(template_builds.c.build_id == build.build_id)
            )
            await connection.execute(
                delete(templates).where(templates.c.template_id == build.template_id, ~others)
            )


async def refuse_deleted_build(connection: AsyncConnection, wanted: Sandbox) -> None:
    """Raises TemplateNotFoundError when the build of `wanted` is being removed: it was resolved
    before, and this transaction is where it would begin to be used."""
    query = select(template_builds.c.state).where(template_builds.c.build_id == wanted.build_id)
    if await connection.scalar(query.with_for_update(read=True)) == BuildState.DELETING:
        raise TemplateNotFoundError(wanted.template_name or wanted.template_id)


def _is_garbage(made_before: datetime) -> ColumnElement[bool]:
    abandoned = and_(
        template_builds.c.state == BuildState.MAKING, template_builds.c.created_at < made_before
    )
    return and_(or_(template_builds.c.state != BuildState.MAKING, abandoned), ~_TAGGED, ~_IN_USE)


async def _owned(connection: AsyncConnection, name: str, team_id: str) -> str | None:
    holder = await _holder(connection, name)
    if holder is None:
        return None
    template_id, owner = holder
    if owner != team_id:
        raise BadRequestError(f"name: {name!r} belongs to another team: choose another one")
    return template_id


async def _holder(connection: AsyncConnection, name: str) -> tuple[str, str | None] | None:
    query = (
        select(templates.c.template_id, templates.c.team_id)
        .join(template_names)
        .where(template_names.c.name == name)
    )
    row = (await connection.execute(query)).first()
    return (row.template_id, row.team_id) if row else None


async def _insert_name(connection: AsyncConnection, name: str, template_id: str) -> None:
    await connection.execute(insert(template_names).values(name=name, template_id=template_id))


async def _insert_template(
    connection: AsyncConnection, build: Build, team_id: str, name: str | None
) -> None:
    await connection.execute(
        insert(templates).values(
            template_id=build.template_id,
            team_id=team_id,
            created_at=build.created_at,
            updated_at=build.created_at,
            **_of_template(build),
        )
    )
    if name is not None:
        await _insert_name(connection, name, build.template_id)


def _of_template(build: Build) -> dict[str, object]:
    return {
        "build_id": build.build_id,
        "vcpu": build.vcpu,
        "ram_mb": build.ram_mb,
        "disk_mb": build.disk_mb,
        "envd_version": build.envd_version,
    }


def _make_default(build: Build, now: datetime) -> Update:
    return (
        update(templates)
        .where(templates.c.template_id == build.template_id)
        .values(updated_at=now, **_of_template(build))
    )


def _update(build: Build, **values: object) -> Update:
    mine = template_builds.c.build_id == build.build_id
    return update(template_builds).where(mine).values(**values)


def _delete_tag(template_id: str, tag: str) -> Delete:
    return delete(template_tags).where(
        template_tags.c.template_id == template_id, template_tags.c.tag == tag
    )


def _build_of(row: Row[tuple[object, ...]]) -> Build:
    values = dict(row._mapping)
    return Build(**{**values, "state": BuildState(values["state"])})
