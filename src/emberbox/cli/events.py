"""`emberbox events`: what happened to sandboxes, who wanted it, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from emberbox.cli.database import print_json, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.api_server.records.history import Entry
    from emberbox.api_server.store import Store

_MOST = 100_000
_INDENT = " " * 4


@click.command()
@click.argument("sandbox_id", required=False)
@click.option("--limit", type=click.IntRange(1, _MOST), default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def events(sandbox_id: str | None, limit: int, *, as_json: bool) -> None:
    """Tell what happened to the sandbox SANDBOX_ID, or to all, oldest first.

    Of more than --limit events the newest are shown. They are kept as long as the records of
    sandboxes are (EMBERBOX_HISTORY_DAYS).
    """

    async def work(store: Store) -> tuple[list[Entry], dict[str, str]]:
        found = await store.events.page(sandbox_id=sandbox_id, limit=limit)
        return found[::-1], {one.key_id: one.name for one in await store.keys.list()}

    found, keys = run(work)
    if sandbox_id is not None and not found:
        raise click.ClickException(
            f"nothing is known of a sandbox {sandbox_id!r}: `emberbox events` lists all there are"
        )
    for entry in found:
        if as_json:
            print_json(_as_dict(entry, keys))
        else:
            click.echo(_told(entry, keys, named=sandbox_id is None))


def _told(entry: Entry, keys: Mapping[str, str], *, named: bool) -> str:
    """One event for a person: the first line tells all, those below are a guest's console."""
    who = f"{entry.sandbox_id}  " if named else ""
    reason, _, more = entry.reason.partition("\n")
    parts = [f"{entry.at:%Y-%m-%d %H:%M:%S}.{entry.at.microsecond // 1000:03d}Z  {who}"]
    parts += [f"{entry.what.value:<14}by {_actor(entry, keys)}"]
    parts += [f": {reason}"] if reason else []
    parts += [f" ({_details(entry)})"] if _details(entry) else []
    parts += [f"\n{_INDENT}{line}" for line in more.splitlines()]
    return "".join(parts)


def _details(entry: Entry) -> str:
    about = {name: value for name, value in entry.data.items() if name != "because"}
    about["host"] = entry.node_id
    if entry.request_id:
        about["request"] = entry.request_id
    return ", ".join(f"{name} {value}" for name, value in about.items())


def _actor(entry: Entry, keys: Mapping[str, str]) -> str:
    from emberbox.api_server import acting  # noqa: PLC0415 - not for `--help`

    name = keys.get(acting.key_id_of(entry.actor) or "")
    told = acting.described(entry.actor)
    return f"{told} ({name!r})" if name else told


def _as_dict(entry: Entry, keys: Mapping[str, str]) -> dict[str, object]:
    return {
        "at": entry.at,
        "sandbox_id": entry.sandbox_id,
        "event": entry.what.value,
        "actor": entry.actor,
        "actor_name": _actor(entry, keys),
        "reason": entry.reason,
        "execution_id": entry.execution_id,
        "team_id": entry.team_id,
        "node_id": entry.node_id,
        "template_id": entry.template_id,
        "build_id": entry.build_id,
        "request_id": entry.request_id,
        "data": dict(entry.data),
    }
