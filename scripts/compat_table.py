"""Turn what the compatibility suites recorded into the table of docs/compatibility.md.

`EMBERBOX_COMPAT_RESULTS` names a file of JSON lines, one per case that ran: `sdk` ("python",
"javascript", "cli"), `group`, `method` ("Class.method"), `flavour` ("sync", "async" or ""), `case`
("normal result", "error: <what>" or "not yet") and `outcome` ("passed" or "failed"). Beside it,
`<file>.surface.javascript` lists that package's public methods as `{"class", "method"}` objects;
those of the Python package are found here. A method without a case is an error, as is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.compat_surface import GROUPS, group_of, python_surface

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RESULTS_VARIABLE = "EMBERBOX_COMPAT_RESULTS"
PAGE = Path(__file__).parent.parent / "docs" / "compatibility.md"
BEGIN = "<!-- begin: written by scripts/compat_table.py -->"
END = "<!-- end: written by scripts/compat_table.py -->"

NORMAL = "normal result"
NOT_YET = "not yet"
ERROR = "error: "
TITLES = {"python": "Python `e2b`", "javascript": "JavaScript `e2b`", "cli": "`@e2b/cli`"}


@dataclass(slots=True)
class Row:
    """What was tested of one method, in all its flavours."""

    sdk: str
    group: str
    method: str
    flavours: dict[str, dict[str, bool]] = field(default_factory=lambda: defaultdict(dict))
    """Whether each case passed, by flavour."""

    @property
    def state(self) -> str:
        """One word when all flavours agree, otherwise each one's."""
        states = {flavour: _state(cases) for flavour, cases in sorted(self.flavours.items())}
        if len(set(states.values())) == 1:
            return next(iter(states.values()))
        return ", ".join(f"{flavour}: {state}" for flavour, state in states.items())

    @property
    def tested(self) -> str:
        """The cases that passed in every flavour that ran them."""
        cases = {case for flavour in self.flavours.values() for case in flavour}
        kept = {case for case in cases if all(f.get(case, True) for f in self.flavours.values())}
        errors = sorted(case.removeprefix(ERROR) for case in kept if case.startswith(ERROR))
        normal = ["normal"] if NORMAL in kept else []
        return ", ".join([*normal, *errors, *(["typed error"] if NOT_YET in kept else [])])

    @property
    def is_green(self) -> bool:
        """Nothing failed and nothing is missing."""
        return all(_state(cases) in {"yes", NOT_YET} for cases in self.flavours.values())

    def counts(self) -> Iterator[str]:
        """The state of each flavour."""
        return (_state(cases) for cases in self.flavours.values())


def main() -> int:
    """Check, count, and write the table. The exit status is 0 when all is green."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare the page, do not write it")
    arguments = parser.parse_args()
    results = Path(os.environ[RESULTS_VARIABLE])
    rows, problems = read_rows(results)
    _print_counts(rows)
    problems += _write_or_compare(render(rows), only_compare=arguments.check)
    for problem in problems:
        print(f"compat: {problem}", file=sys.stderr)
    return 1 if problems else 0


def read_rows(results: Path) -> tuple[list[Row], list[str]]:
    """The rows in the order of the page, and all that is not as it should be."""
    rows: dict[tuple[str, str], Row] = {}
    for line in results.read_text().splitlines() if results.exists() else []:
        _add_result(rows, json.loads(line))
    problems = _add_python_surface(rows) + _add_javascript_surface(rows, results)
    problems += [
        f"{row.sdk}: {row.method} is in group {row.group!r}, which scripts/compat_surface.py lacks"
        for row in rows.values()
        if row.group not in GROUPS
    ]
    sdks, groups = [*TITLES], [*GROUPS]
    ordered = sorted(
        (row for row in rows.values() if row.group in GROUPS),
        key=lambda row: (sdks.index(row.sdk), groups.index(row.group), row.method),
    )
    return ordered, problems + [
        f"{row.sdk}: {row.method} is not green ({row.state})" for row in ordered if not row.is_green
    ]


def render(rows: list[Row]) -> str:
    """The table of each SDK, as Markdown."""
    parts = [_render_sdk(sdk, [row for row in rows if row.sdk == sdk]) for sdk in TITLES]
    return "\n".join(part for part in parts if part)


def _state(cases: dict[str, bool]) -> str:
    if not all(cases.values()):
        return "failed"
    if NOT_YET in cases:
        return NOT_YET
    return "yes" if NORMAL in cases else "untested"


def _add_result(rows: dict[tuple[str, str], Row], result: dict[str, str]) -> None:
    sdk, method = result["sdk"], result["method"]
    row = rows.setdefault((sdk, method), Row(sdk, result["group"], method))
    cases = row.flavours[result["flavour"]]
    # A case may run more than once; one failure is enough.
    cases[result["case"]] = cases.get(result["case"], True) and result["outcome"] == "passed"


def _add_python_surface(rows: dict[tuple[str, str], Row]) -> list[str]:
    surface = python_surface()
    for method in surface:
        key = ("python", method.name)
        row = rows.setdefault(key, Row("python", group_of(method.name), method.name))
        row.flavours[method.flavour]  # without cases unless there are results
    return _unknown(rows, "python", {method.name for method in surface})


def _add_javascript_surface(rows: dict[tuple[str, str], Row], results: Path) -> list[str]:
    listing = results.with_name(f"{results.name}.surface.javascript")
    if not listing.exists():
        return [f"javascript: the suite left no list of methods in {listing}"]
    names = [f"{entry['class']}.{entry['method']}" for entry in json.loads(listing.read_text())]
    untested = [name for name in names if ("javascript", name) not in rows]
    return [f"javascript: {name} has no case" for name in untested] + _unknown(
        rows, "javascript", set(names)
    )


def _unknown(rows: Iterable[tuple[str, str]], sdk: str, names: set[str]) -> list[str]:
    return [
        f"{sdk}: {method} was tested but is no public method"
        for of, method in rows
        if of == sdk and method not in names
    ]


def _render_sdk(sdk: str, rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = [f"### {TITLES[sdk]}", ""]
    for group in dict.fromkeys(row.group for row in rows):
        lines += [f"{group}: {GROUPS[group]}", "", "| Method | State | Tested |", "|---|---|---|"]
        lines += [
            f"| `{row.method}` | {row.state} | {row.tested} |" for row in rows if row.group == group
        ]
        lines.append("")
    return "\n".join(lines)


def _print_counts(rows: list[Row]) -> None:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.sdk, row.group].update(row.counts())
    for (sdk, group), states in counts.items():
        told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        print(f"{sdk:<11} {group:<11} {sum(states.values()):>4} methods: {told}")


def _write_or_compare(table: str, *, only_compare: bool) -> list[str]:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        return [f"{PAGE.name} lacks the lines {BEGIN} and {END}"]
    wanted = f"{before}{BEGIN}\n\n{table}\n{END}{after}"
    if wanted == page:
        return []
    if only_compare:
        return [f"{PAGE.name} is out of date: run make compat and commit it"]
    PAGE.write_text(wanted)
    return []


if __name__ == "__main__":
    sys.exit(main())
