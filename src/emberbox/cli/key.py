"""`emberbox key create | list | revoke`."""

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

if TYPE_CHECKING:
    from emberbox.api_server.store import ApiKey, Store

_DEFAULT_TEAM = "default"
_NAME_LENGTH = 128


@click.group()
def key() -> None:
    """Make, list and revoke API keys."""


@key.command()
@click.option("--team", "team_name", default=_DEFAULT_TEAM, show_default=True, help="Its team.")
@click.option("--name", default="", help="What it is for.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(team_name: str, name: str, *, as_json: bool) -> None:
    """Make a key and print it: it is stored as a hash and cannot be shown again."""
    from emberbox.api_server.tokens import new_api_key  # noqa: PLC0415 - not for `--help`

    if len(name) > _NAME_LENGTH:
        raise click.ClickException(f"--name must be {_NAME_LENGTH} characters at most")
    value = new_api_key()

    async def work(store: Store) -> str:
        owner = await _owner(store, team_name)
        return await store.keys.add(owner, name, value, datetime.now(UTC))

    key_id = run(work)
    if as_json:
        print_json({"key_id": key_id, "key": value, "team": team_name, "name": name})
    else:
        click.echo(value)


@key.command("list")
@click.option("--team", "team_name", help="Only keys of this team.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(team_name: str | None, *, as_json: bool) -> None:
    """List keys, without the keys themselves."""

    async def work(store: Store) -> tuple[dict[str, str], list[ApiKey]]:
        team_id = (await team_named(store, team_name)).team_id if team_name else None
        names = {one.team_id: one.name for one in await store.teams.list()}
        return names, await store.keys.list(team_id)

    teams, found = run(work)
    if as_json:
        print_json([{**as_dict(one), "team": teams[one.team_id]} for one in found])
    else:
        heads = ("ID", "KEY", "TEAM", "NAME", "CREATED", "LAST USED", "REVOKED")
        print_table(heads, [_line(one, teams[one.team_id]) for one in found])


@key.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Make a key invalid; servers refuse it within seconds."""

    from emberbox.api_server.notices import KEY_REVOKED  # noqa: PLC0415 - not for `--help`

    async def work(store: Store) -> bool:
        revoked = await store.keys.revoke(key_id, datetime.now(UTC))
        await tell_servers(KEY_REVOKED, key_id)
        return revoked

    if not run(work):
        raise click.ClickException(f"no valid key has the id {key_id!r}: see `emberbox key list`")


async def _owner(store: Store, team_name: str) -> str:
    """The team's id. The first key of a fresh machine brings the default team with it."""
    from emberbox.api_server.store import Limits  # noqa: PLC0415 - not for `--help`

    if team_name == _DEFAULT_TEAM and not await store.teams.list():
        made = await store.teams.create(_DEFAULT_TEAM, Limits(), datetime.now(UTC))
        if made is not None:
            return made.team_id
    return (await team_named(store, team_name)).team_id


def _line(one: ApiKey, team_name: str) -> tuple[str, ...]:
    times = (one.created_at, one.last_used_at, one.revoked_at)
    shown = (f"{time:%Y-%m-%d %H:%M}" if time else "-" for time in times)
    return (one.key_id, one.mask, team_name, one.name or "-", *shown)
