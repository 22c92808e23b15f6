"""`emberbox snapshots`: what paused sandboxes and checkpoints take on this machine's disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from emberbox.cli.database import print_json, print_table
from emberbox.shared.home import Home, default_home

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Line:
    """One snapshot. Sizes are in bytes on disk."""

    kind: str
    name: str
    build: str
    made: datetime
    memory_bytes: int
    disk_bytes: int


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Where the state is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def snapshots(home: Path | None, *, as_json: bool) -> None:
    """List paused sandboxes and checkpoints of this host with their sizes."""
    state = Home(home or default_home())
    lines = [*_paused(state), *_checkpoints(state)]
    if as_json:
        print_json([_as_dict(line) for line in lines])
        return
    rows = [_row(line) for line in lines]
    total = sum(line.memory_bytes + line.disk_bytes for line in lines)
    print_table(("KIND", "NAME", "BUILD", "MADE", "MEMORY MiB", "DISK MiB"), rows)
    click.echo(f"{len(lines)} snapshots, {total / _MIB:.0f} MiB")


def _paused(state: Home) -> list[_Line]:
    from emberbox.orchestrator.snapshots.local import LocalSnapshotStore  # noqa: PLC0415 - not for `-h`

    if not state.snapshots.is_dir():
        return []
    return [
        _Line(
            "paused",
            one.sandbox_id,
            one.build_id,
            datetime.fromtimestamp(one.paused_at, UTC),
            one.memory_bytes,
            one.disk_bytes,
        )
        for one in LocalSnapshotStore(state.snapshots).all()
    ]


def _checkpoints(state: Home) -> list[_Line]:
    from emberbox.orchestrator.templates.checkpoints import measured  # noqa: PLC0415 - as above
    from emberbox.orchestrator.templates.store import TemplateStore  # noqa: PLC0415

    if not state.templates.is_dir():
        return []
    found = [b for b in TemplateStore(state.templates).all() if b.manifest.checkpoint]
    return [
        _Line(
            "checkpoint",
            one.template.spec.template_id,
            one.template.build_id,
            datetime.fromtimestamp(one.template.directory.stat().st_mtime, UTC),
            one.memory_bytes,
            one.disk_bytes,
        )
        for one in map(measured, found)
    ]


def _row(line: _Line) -> list[str]:
    sizes = (f"{size / _MIB:.1f}" for size in (line.memory_bytes, line.disk_bytes))
    return [line.kind, line.name, line.build, f"{line.made:%Y-%m-%d %H:%M:%S}", *sizes]


def _as_dict(line: _Line) -> dict[str, object]:
    return {
        "kind": line.kind,
        "name": line.name,
        "build": line.build,
        "made": line.made,
        "memory_bytes": line.memory_bytes,
        "disk_bytes": line.disk_bytes,
    }
