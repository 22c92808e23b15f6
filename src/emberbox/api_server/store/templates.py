"""Templates by id and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, or_, select, update

from emberbox.api_server.store.rows import Template
from emberbox.api_server.store.tables import template_names, templates

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store.database import Database


class TemplateStore:
    """Rows of `templates` and `template_names`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, names: Collection[str], team_id: str) -> Template | None:
        """The template of one of these names or ids that a team may use; its own come first."""
        by_name = select(template_names.c.template_id).where(template_names.c.name.in_(names))
        query = (
            select(templates)
            .where(
                or_(templates.c.template_id.in_(names), templates.c.template_id.in_(by_name)),
                or_(templates.c.team_id.is_(None), templates.c.team_id == team_id),
            )
            .order_by(templates.c.team_id.is_(None))
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
            return await _with_names(connection, row) if row else None

    async def put_built_in(self, found: Iterable[Template], now: datetime) -> None:
        """Record what a node has; names follow the newest word. Nothing is removed: another
        node may have it, and the node that lacks it says so at create. What has no name is the
        checkpoint of some sandbox."""
        async with self._database.write(alone="templates") as connection:
            for template in found:
                if template.names:
                    await _put(connection, template, now)


async def _put(connection: AsyncConnection, template: Template, now: datetime) -> None:
    values = {
        "build_id": template.build_id,
        "vcpu": template.vcpu,
        "ram_mb": template.ram_mb,
        "disk_mb": template.disk_mb,
        "envd_version": template.envd_version,
        "updated_at": now,
    }
    changed = await connection.execute(
        update(templates).where(templates.c.template_id == template.template_id).values(**values)
    )
    if changed.rowcount == 0:
        await connection.execute(
            insert(templates).values(template_id=template.template_id, created_at=now, **values)
        )
    await connection.execute(
        delete(template_names).where(
            or_(
                template_names.c.template_id == template.template_id,
                template_names.c.name.in_(template.names),
            )
        )
    )
    for name in template.names:
        await connection.execute(
            insert(template_names).values(name=name, template_id=template.template_id)
        )


async def _with_names(connection: AsyncConnection, row: Row[tuple[object, ...]]) -> Template:
    values = row._mapping
    query = (
        select(template_names.c.name)
        .where(template_names.c.template_id == values["template_id"])
        .order_by(template_names.c.name)
    )
    return Template(
        template_id=values["template_id"],
        build_id=values["build_id"],
        names=tuple((await connection.scalars(query)).all()),
        vcpu=values["vcpu"],
        ram_mb=values["ram_mb"],
        disk_mb=values["disk_mb"],
        envd_version=values["envd_version"],
        team_id=values["team_id"],
    )
