"""`emberbox doctor`: which drivers work here, and the one thing missing where one does not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from emberbox.cli import checks
from emberbox.cli.finding import Finding, Level
from emberbox.cli.servers import load_settings
from emberbox.orchestrator.machines.probe import probe_all
from emberbox.orchestrator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emberbox.orchestrator.machines.driver import DriverReport

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.MISSING: "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(*, as_json: bool) -> None:
    """Tell what this machine can run and what to mend.

    Exit status 1 when sandboxes cannot run here.
    """
    settings = load_settings(Settings)
    drivers = probe_all(settings.firecracker_options)
    findings = list(checks.look(settings.paths, settings.network, settings))
    healthy = all(finding.level is not Level.MISSING for finding in findings)
    if as_json:
        click.echo(_as_json(drivers, findings, healthy=healthy))
    else:
        _show(drivers, findings)
    sys.exit(0 if healthy else 1)


def _as_json(drivers: Sequence[DriverReport], findings: Sequence[Finding], *, healthy: bool) -> str:
    report = {
        "healthy": healthy,
        "drivers": [asdict(driver) for driver in drivers],
        "findings": [
            {"subject": finding.subject, "level": finding.level.value, "text": finding.text}
            for finding in findings
        ],
    }
    return json.dumps(report)


def _show(drivers: Sequence[DriverReport], findings: Sequence[Finding]) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed with --json
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in (*map(_finding, drivers), *findings):
        level = Text(finding.level.value, style=_COLOURS[finding.level])
        table.add_row(level, Text(finding.subject), Text(finding.text))
    # Lines are folded for a terminal only: a file or pipe gets them whole.
    width = None if sys.stdout.isatty() else 1000
    Console(highlight=False, width=width).print(table)


def _finding(driver: DriverReport) -> Finding:
    subject = f"driver {driver.name}"
    if driver.usable:
        text = f"usable with {driver.accelerator}, version {driver.version}"
        return Finding(subject, Level.OK, text)
    return Finding(subject, Level.WARNING, f"not usable: {driver.missing}")
