"""`make soak`: every long suite in full, one after the other, and a report of them.

A suite that fails does not keep the next from running; the exit status is 1 then. The report is
.soak/report.md, with what each suite printed beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.__main__ import NAMES

ROOT = Path(__file__).parent.parent
PLACE = ROOT / ".soak"
FIGURES = PLACE / "figures.jsonl"
_PYTEST = (sys.executable, "-m", "pytest")
_IN_PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
_LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class Suite:
    """One command and the variables that make it long."""

    name: str
    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """How it went."""

    suite: Suite
    status: int
    seconds: float
    last_lines: list[str]


SUITES = (
    Suite("compatibility", ("make", "compat")),
    Suite("cluster", ("make", "cluster")),
    Suite("long unit tests", (*_PYTEST, *_IN_PARALLEL, "-m", "exhaustive", "tests/unit")),
    Suite("long integration tests", (*_PYTEST, "-m", "exhaustive", "tests/integration")),
    Suite("leaks", ("make", "leaks")),
    Suite("faults", ("make", "faults")),
    Suite("conformance", ("make", "conformance")),
    Suite("fuzzing", ("make", "fuzz")),
    Suite("idle streams", (*_PYTEST, "tests/soak"), {"EMBERBOX_SOAK_IDLE_SECONDS": "1800"}),
    *(Suite(f"benchmark {name}", (sys.executable, "-m", "benchmarks", name)) for name in NAMES),
)


def main() -> int:
    """Run all, or those whose names are given; 1 when one failed."""
    PLACE.mkdir(exist_ok=True)
    FIGURES.unlink(missing_ok=True)
    wanted = set(sys.argv[1:])
    if unknown := wanted - {suite.name for suite in SUITES}:
        sys.exit(f"no suite {', '.join(sorted(unknown))}: there are {[s.name for s in SUITES]}")
    began = datetime.now(UTC)
    results: list[Result] = []
    for suite in SUITES:
        if not wanted or suite.name in wanted:
            results.append(run(suite))
            (PLACE / "report.md").write_text(report(began, results))
    print((PLACE / "report.md").read_text())
    return int(any(result.status for result in results))


def run(suite: Suite) -> Result:
    """Run it with its output in a file of its own."""
    print(f"== {suite.name}: {' '.join(suite.command)}", flush=True)
    log = PLACE / f"{suite.name.replace(' ', '-')}.log"
    variables = {**os.environ, "EMBERBOX_REPORT": str(FIGURES), **suite.variables}
    began = time.monotonic()
    with log.open("w") as output:
        status = subprocess.run(
            suite.command, cwd=ROOT, env=variables, stdout=output, stderr=output, check=False
        ).returncode
    seconds = time.monotonic() - began
    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    print(f"== {suite.name}: exit status {status}, {seconds:.0f} s", flush=True)
    return Result(suite, status, seconds, lines)


def report(began: datetime, results: list[Result]) -> str:
    """The report so far, in Markdown."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    lines = [
        f"# Soak of {commit}, begun {began:%Y-%m-%d %H:%M} UTC on {os.cpu_count()} cores",
        "",
        "| Suite | | Seconds | Last line |",
        "|---|---|---|---|",
    ]
    for one in results:
        how = "passed" if one.status == 0 else f"FAILED ({one.status})"
        last = one.last_lines[-1].replace("|", "\\|") if one.last_lines else ""
        lines.append(f"| {one.suite.name} | {how} | {one.seconds:.0f} | {last} |")
    lines += ["", "## Figures", "", *_figures(), ""]
    for one in results:
        if one.status:
            lines += [f"## The end of {one.suite.name}", "", "```", *one.last_lines, "```", ""]
    return "\n".join(lines)


def _figures() -> list[str]:
    if not FIGURES.exists():
        return ["none yet"]
    found = [json.loads(line) for line in FIGURES.read_text().splitlines()]
    return [
        f"- {one.pop('suite')}: " + ", ".join(f"{name} {value}" for name, value in one.items())
        for one in found
    ]


if __name__ == "__main__":
    sys.exit(main())
