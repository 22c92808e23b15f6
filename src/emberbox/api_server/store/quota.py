"""What a team may use, counted over its rows in the transaction that reserves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, literal, select, union_all

from emberbox.api_server.errors import (
    BadRequestError,
    NodeFullError,
    QuotaExceededError,
    UnauthorizedError,
)
from emberbox.api_server.full_hosts import full_of_promises, full_of_sandboxes
from emberbox.api_server.records.lifecycle import COUNTED, LIVE
from emberbox.api_server.store.tables import nodes, sandboxes
from emberbox.api_server.store.teams import lock_team

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store.rows import Limits, Sandbox

_COUNTS = sandboxes.c.state.in_(COUNTED)
_REMEDY = "kill or pause a sandbox, or raise the limit with `emberbox team limits`"


async def check_quota(connection: AsyncConnection, wanted: Sandbox) -> None:
    """Raise QuotaExceededError or BadRequestError when `wanted` would pass a limit of its team.

    `wanted` itself, which is there already when it is resumed, is not among what is counted.

    The row of the team is locked first (on SQLite the whole database is), so that reservations
    of one team are counted one after another, whichever API servers they came to.
    """
    team = await lock_team(connection, wanted.team_id)
    if team is None:
        raise UnauthorizedError("Cannot get the team for the given API key")
    limits = team.limits
    _check_one(limits, wanted)
    if not limits.of_all:
        return
    count, vcpu, ram_mb, disk_mb = await _used(connection, wanted)
    if limits.concurrent_sandboxes is not None and count >= limits.concurrent_sandboxes:
        raise QuotaExceededError(
            "You have reached the maximum number of concurrent sandboxes "
            f"({limits.concurrent_sandboxes}): {_REMEDY}"
        )
    _check_sum("vCPUs", vcpu, wanted.vcpu, limits.total_vcpu)
    _check_sum("MiB of memory", ram_mb, wanted.ram_mb, limits.total_ram_mb)
    _check_sum("MiB of disk", disk_mb, wanted.disk_mb, limits.total_disk_mb)


async def _used(connection: AsyncConnection, wanted: Sandbox) -> tuple[int, int, int, int]:
    """Sandboxes, vCPUs, MiB of memory and of disk of the team; what is paused takes disk only.

    The rows of a team are many, so they are summed from the index alone, which has no ids:
    `wanted`'s own row is taken off again.
    """
    row = sandboxes.c
    sums = func.sum(row.vcpu), func.sum(row.ram_mb), func.sum(row.disk_mb)
    of_team = (
        select(row.state, func.count(), *sums)
        .where(row.team_id == wanted.team_id, row.state.in_(LIVE))
        .group_by(row.state)
    )
    its_own = select(row.state, literal(-1), -row.vcpu, -row.ram_mb, -row.disk_mb).where(
        row.sandbox_id == wanted.sandbox_id, row.state.in_(LIVE)
    )
    found = (await connection.execute(union_all(of_team, its_own))).all()
    running = [numbers for state, *numbers in found if state in COUNTED]
    count, vcpu, ram_mb = (sum(numbers[i] for numbers in running) for i in range(3))
    return count, vcpu, ram_mb, sum(one[-1] for one in found)


async def check_node(connection: AsyncConnection, wanted: Sandbox) -> None:
    """Raise NodeFullError when `wanted` would pass what its node says that it takes.

    The row of the node is locked, so that reservations by several API servers are counted one
    after another. A node that nobody has told of yet is left to its own admission.
    """
    query = select(nodes.c.max_sandboxes, nodes.c.max_ram_mb).where(
        nodes.c.node_id == wanted.node_id
    )
    limits = (await connection.execute(query.with_for_update(key_share=True))).first()
    if limits is None:
        return
    used = await connection.execute(
        select(func.count(), func.coalesce(func.sum(sandboxes.c.ram_mb), 0)).where(
            sandboxes.c.node_id == wanted.node_id,
            _COUNTS,
            sandboxes.c.sandbox_id != wanted.sandbox_id,
        )
    )
    count, ram_mb = used.one()
    if count >= limits.max_sandboxes:
        raise NodeFullError(full_of_sandboxes(count, limits.max_sandboxes))
    if ram_mb + wanted.ram_mb > limits.max_ram_mb:
        raise NodeFullError(full_of_promises(ram_mb, limits.max_ram_mb))


def _check_one(limits: Limits, wanted: Sandbox) -> None:
    for unit, value, limit in (
        ("vCPUs", wanted.vcpu, limits.max_vcpu),
        ("MiB of memory", wanted.ram_mb, limits.max_ram_mb),
        ("MiB of disk", wanted.disk_mb, limits.max_disk_mb),
    ):
        if limit is not None and value > limit:
            raise BadRequestError(
                f"The template needs {value} {unit}; your team's limit for one sandbox is {limit}"
            )


def _check_sum(unit: str, used: int, wanted: int, limit: int | None) -> None:
    if limit is not None and used + wanted > limit:
        raise QuotaExceededError(
            f"Your team's sandboxes use {used} of {limit} {unit} and this one needs {wanted}: "
            f"{_REMEDY}"
        )
