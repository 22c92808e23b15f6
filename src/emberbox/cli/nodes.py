"""`emberbox nodes` and `emberbox node drain | undrain | forget`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from emberbox.cli.database import (
    api_settings,
    drop_from_catalog,
    print_json,
    print_table,
    run,
)
from emberbox.shared.labels import format_labels

if TYPE_CHECKING:
    from emberbox.api_server.store import NodeRecord, NodeUsage, Store

_HEADS = ("NODE", "STATE", "SANDBOXES", "MEMORY", "CPU", "DRIVER", "LABELS", "ADDRESS", "SEEN")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def nodes(*, as_json: bool) -> None:
    """List the hosts: state, sandboxes, memory promised to them, processors in use."""

    async def work(store: Store) -> tuple[list[NodeRecord], dict[str, NodeUsage]]:
        return await store.nodes.all(), await store.nodes.usage()

    records, usage = run(work)
    lines = [(one, usage.get(one.node_id)) for one in records]
    if as_json:
        print_json([_as_dict(one, used) for one, used in lines])
    else:
        print_table(_HEADS, [_line(one, used) for one, used in lines])


@click.group()
def node() -> None:
    """Let a host take no more sandboxes, or give it up."""


@node.command()
@click.argument("node_id")
def drain(node_id: str) -> None:
    """Place no more sandboxes on a host; those that it has go on."""
    _set_draining(node_id, draining=True)


@node.command()
@click.argument("node_id")
def undrain(node_id: str) -> None:
    """Place sandboxes on a host again."""
    _set_draining(node_id, draining=False)


@node.command()
@click.argument("node_id")
@click.option("--force", is_flag=True, help="Also one that still answers.")
def forget(node_id: str, *, force: bool) -> None:
    """Give up a host that does not come back.

    All sandboxes that it has, running and paused, are recorded as lost and hold no quota any more.
    """
    from emberbox.api_server.forgetting import forget_node  # noqa: PLC0415 - not for `--help`

    async def work(store: Store) -> int:
        record = await store.nodes.get(node_id)
        if record is None:
            raise _unknown(node_id)
        if not force and _state(record) != "unreachable":
            raise click.ClickException(
                f"node {node_id} was heard {_ago(record)} ago: stop its orchestrator and try again "
                "in half a minute, or use --force"
            )
        lost = await forget_node(store, node_id, datetime.now(UTC))
        await drop_from_catalog(lost)
        return len(lost)

    click.echo(f"forgotten with {run(work)} sandboxes")


def _set_draining(node_id: str, *, draining: bool) -> None:
    async def work(store: Store) -> bool:
        return await store.nodes.set_draining(node_id, draining=draining)

    if not run(work):
        raise _unknown(node_id)


def _unknown(node_id: str) -> click.ClickException:
    return click.ClickException(f"no node {node_id!r}: see `emberbox nodes`")


def _state(record: NodeRecord) -> str:
    silent_after = timedelta(seconds=api_settings().node_silent_after)
    if datetime.now(UTC) - record.seen_at > silent_after:
        return "unreachable"
    if record.draining:
        return "draining"
    return "ready" if record.ready else "not ready"


def _as_dict(record: NodeRecord, usage: NodeUsage | None) -> dict[str, object]:
    used = asdict(usage) if usage else {"sandboxes": 0, "vcpu": 0, "ram_mb": 0}
    return {**asdict(record), "state": _state(record), "used": used}


def _line(record: NodeRecord, usage: NodeUsage | None) -> tuple[str, ...]:
    sandboxes, ram_mb = (usage.sandboxes, usage.ram_mb) if usage else (0, 0)
    return (
        record.node_id,
        _state(record),
        f"{sandboxes}/{record.max_sandboxes}",
        f"{ram_mb}/{record.max_ram_mb} MiB",
        f"{record.cpu_used:.1f}/{record.cpu_count} {record.cpu_model}",
        "/".join(filter(None, (record.driver, record.accelerator))),
        format_labels(record.labels) or "-",
        record.address,
        f"{_ago(record)} ago",
    )


def _ago(record: NodeRecord) -> str:
    return f"{(datetime.now(UTC) - record.seen_at).total_seconds():.0f} s"
