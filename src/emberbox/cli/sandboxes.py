"""`emberbox sandboxes`: what runs on this host, how it was started and where the time went."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from emberbox.cli.database import print_json, print_table
from emberbox.cli.servers import load_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeVar

    from google.protobuf.timestamp_pb2 import Timestamp

    from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
    from emberbox.cli.host import HostClient, Listing

    Result = TypeVar("Result")

_HEADS = ("ID", "STATE", "MADE BY", "READY ms", "STARTED", "ENDS", "STEPS ms")


@click.command()
@click.argument("sandbox_id", required=False)
@click.option("--orchestrator", metavar="HOST:PORT", help="Where it listens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sandboxes(sandbox_id: str | None, orchestrator: str | None, *, as_json: bool) -> None:
    """List this host's sandboxes, or tell the story of one."""
    client = _client(orchestrator)
    if sandbox_id is not None:
        story = _answer(client, client.story(sandbox_id))
        print_json(story) if as_json else click.echo("\n".join(story))
        return
    listing = _answer(client, client.listing())
    if as_json:
        print_json(_as_dict(listing))
        return
    print_table(_HEADS, [_row(one) for one in listing.sandboxes])
    info = listing.info
    click.echo(
        f"{len(listing.sandboxes)} sandboxes; warm clones: {info.pool_ready} ready,"
        f" {info.pool_making} being made, {info.pool_wanted} wanted"
    )


def _client(address: str | None) -> HostClient:
    from emberbox.cli.host import HostClient  # noqa: PLC0415 - gRPC is not for `--help`
    from emberbox.cli.options import reached  # noqa: PLC0415
    from emberbox.orchestrator.settings import Settings  # noqa: PLC0415
    from emberbox.shared.internal_secret import load_or_create  # noqa: PLC0415

    settings = load_settings(Settings)
    default = f"{reached(settings.host)}:{settings.port}"
    return HostClient(address or default, load_or_create(settings.secret_file))


def _answer(client: HostClient, asked: Coroutine[None, None, Result]) -> Result:
    from emberbox.cli.host import HostUnreachableError  # noqa: PLC0415

    try:
        return asyncio.run(asked)
    except HostUnreachableError as error:
        message = f"the orchestrator at {client.address}: {error}"
        if error.refused:
            message += "; is `emberbox up` running? --orchestrator names another"
        raise click.ClickException(message) from error


def _row(one: pb.RunningSandbox) -> list[str]:
    steps = ", ".join(f"{step.name} {step.milliseconds:.1f}" for step in one.steps)
    return [
        one.sandbox_id,
        one.state,
        one.way or "-",
        f"{_total(one):.1f}" if one.steps else "-",
        *(f"{_time(at):%Y-%m-%d %H:%M:%S}" for at in (one.start_time, one.end_time)),
        steps or "-",
    ]


def _as_dict(listing: Listing) -> dict[str, object]:
    info = listing.info
    return {
        "sandboxes": [_sandbox_as_dict(one) for one in listing.sandboxes],
        "warm_clones": {
            "ready": info.pool_ready,
            "making": info.pool_making,
            "wanted": info.pool_wanted,
        },
    }


def _sandbox_as_dict(one: pb.RunningSandbox) -> dict[str, object]:
    return {
        "sandbox_id": one.sandbox_id,
        "execution_id": one.execution_id,
        "template_id": one.template_id,
        "state": one.state,
        "made_by": one.way,
        "ready_ms": round(_total(one), 1),
        "steps_ms": {step.name: round(step.milliseconds, 1) for step in one.steps},
        "started_at": _time(one.start_time),
        "end_at": _time(one.end_time),
    }


def _total(one: pb.RunningSandbox) -> float:
    return sum(step.milliseconds for step in one.steps)


def _time(at: Timestamp) -> datetime:
    return at.ToDatetime(UTC)
