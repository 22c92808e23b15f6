"""Templates by id and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, or_, select, update

from emberbox.api_server.store.rows import NodeTemplate, Template
from emberbox.api_server.store.tables import node_templates, template_names, templates

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

    async def put_built_in(self, node_id: str, found: Iterable[Template], now: datetime) -> None:
        """Record what a node has; names and sizes follow the newest word. No template is removed:
        another node may have it. What has no name is the checkpoint of some sandbox."""
        named = [template for template in found if template.names]
        async with self._database.write(alone="templates") as connection:
            await connection.execute(
                delete(node_templates).where(node_templates.c.node_id == node_id)
            )
            for template in named:
                await _put(connection, template, now)
                of_node = {"node_id": node_id, "template_id": template.template_id}
                await connection.execute(
                    insert(node_templates).values(**of_node, **_build_values(template))
                )

    async def by_node(self) -> dict[str, dict[str, NodeTemplate]]:
        """What each node has of the built-in ones, by its id and theirs."""
        found: dict[str, dict[str, NodeTemplate]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(select(node_templates)):
                found.setdefault(row.node_id, {})[row.template_id] = NodeTemplate(*row[2:])
        return found


def _build_values(template: Template) -> dict[str, object]:
    return {
        "build_id": template.build_id,
        "vcpu": template.vcpu,
        "ram_mb": template.ram_mb,
        "disk_mb": template.disk_mb,
        "envd_version": template.envd_version,
    }


async def _put(connection: AsyncConnection, template: Template, now: datetime) -> None:
    values = {**_build_values(template), "updated_at": now}
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
