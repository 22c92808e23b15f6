"""`emberbox team create | list | limits | labels | delete`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from emberbox.cli.database import (
    as_dict,
    print_json,
    print_table,
    run,
    team_named,
    tell_servers,
)
from emberbox.shared.labels import parse_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.api_server.store import Store, Team

_LIMITS = {
    "concurrent_sandboxes": "Sandboxes at once.",
    "max_length_hours": "Longest life of a sandbox, in hours.",
    "max_vcpu": "vCPUs of one sandbox.",
    "max_ram_mb": "Memory of one sandbox, in MiB.",
    "max_disk_mb": "Disk of one sandbox, in MiB.",
    "total_vcpu": "vCPUs of all sandboxes.",
    "total_ram_mb": "Memory of all sandboxes, in MiB.",
    "total_disk_mb": "Disk of all sandboxes, in MiB.",
}
_NAME_LENGTH = 64


@click.group()
def team() -> None:
    """Make and list teams, and set what they may use."""


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, text in reversed(_LIMITS.items()):
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            type=click.IntRange(min=-1),
            help=f"{text} -1: unlimited.",
        )(command)
    return command


@team.command()
@click.argument("name")
@_limit_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(name: str, *, as_json: bool, **limits: int | None) -> None:
    """Make a team; what is not limited is unlimited."""
    from emberbox.api_server.store import Limits  # noqa: PLC0415 - not for `--help`

    if not name.strip() or len(name) > _NAME_LENGTH:
        raise click.ClickException(f"NAME must be 1 to {_NAME_LENGTH} characters")

    async def work(store: Store) -> Team:
        made = await store.teams.create(name, Limits(**_given(limits)), datetime.now(UTC))
        if made is None:
            raise click.ClickException(f"there is a team {name!r} already")
        return made

    made = run(work)
    if as_json:
        print_json(as_dict(made))
    else:
        click.echo(made.team_id)


@team.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_teams(*, as_json: bool) -> None:
    """List teams and their limits."""

    async def work(store: Store) -> list[Team]:
        return await store.teams.list()

    found = run(work)
    if as_json:
        print_json([as_dict(one) for one in found])
    else:
        print_table(
            ("NAME", "ID", "LIMITS"), [(one.name, one.team_id, _limits_text(one)) for one in found]
        )


@team.command("limits")
@click.argument("name")
@_limit_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def set_limits(name: str, *, as_json: bool, **limits: int | None) -> None:
    """Change limits of a team and show them; they hold for the next create."""
    from emberbox.api_server.notices import TEAM_CHANGED  # noqa: PLC0415 - not for `--help`

    async def work(store: Store) -> Team:
        found = await team_named(store, name)
        await store.teams.set_limits(found.team_id, _given(limits))
        await tell_servers(TEAM_CHANGED, found.team_id)
        return await team_named(store, name)

    found = run(work)
    if as_json:
        print_json(as_dict(found))
    else:
        click.echo(_limits_text(found))


@team.command("labels")
@click.argument("name")
@click.argument("labels", required=False, default="")
def set_labels(name: str, labels: str) -> None:
    """Place a team's sandboxes only on nodes with LABELS (zone=a,disk=nvme); none: on any."""
    from emberbox.api_server.notices import TEAM_CHANGED  # noqa: PLC0415 - not for `--help`

    try:
        wanted = parse_labels(labels)
    except ValueError as error:
        raise click.ClickException(f"LABELS: {error}") from error

    async def work(store: Store) -> None:
        found = await team_named(store, name)
        await store.teams.set_node_labels(found.team_id, wanted)
        await tell_servers(TEAM_CHANGED, found.team_id)

    run(work)


@team.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete a team with its keys and history; refused while it has sandboxes."""

    async def work(store: Store) -> int:
        found = await team_named(store, name)
        return await store.teams.delete(found.team_id)

    live = run(work)
    if live:
        raise click.ClickException(f"team {name!r} has {live} live sandboxes: kill them first")


def _given(limits: dict[str, int | None]) -> dict[str, int | None]:
    return {
        name: None if value == -1 else value for name, value in limits.items() if value is not None
    }


def _limits_text(one: Team) -> str:
    limits = as_dict(one)["limits"]
    if not isinstance(limits, dict):
        raise TypeError("limits are a mapping")
    given = [f"{name}={value}" for name, value in limits.items() if value is not None]
    return ", ".join(given) or "unlimited"
