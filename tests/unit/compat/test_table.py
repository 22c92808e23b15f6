"""What scripts/compat_table.py makes of results, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from scripts import compat_table
from scripts.compat_surface import group_of, python_surface
from scripts.compat_table import BEGIN, END, NORMAL, NOT_YET

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    monkeypatch.setattr(compat_table, "PAGE", page)
    return page


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results in which all is green; the last line of each method counts for it alone."""
    results = tmp_path / "results.jsonl"
    monkeypatch.setenv(compat_table.RESULTS_VARIABLE, str(results))
    monkeypatch.setattr("sys.argv", ["compat_table"])
    for method in python_surface():
        add(results, "python", method.name, NORMAL, flavour=method.flavour)
    results.with_name("results.jsonl.surface.javascript").write_text(
        json.dumps([{"class": "Sandbox", "method": "create"}])
    )
    add(results, "javascript", "Sandbox.create", NORMAL)
    return results


def add(results: Path, sdk: str, method: str, case: str, **more: str) -> None:
    group = group_of(method) if sdk == "python" else "L"
    result = {"sdk": sdk, "group": group, "method": method, "case": case}
    with results.open("a") as lines:
        lines.write(json.dumps({"flavour": "", "outcome": "passed", **result, **more}) + "\n")


def test_all_green(page: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(results, "python", "Sandbox.kill", "error: NotThere", flavour="sync")
    assert compat_table.main() == 0
    told = page.read_text()
    assert told.startswith("before\n")
    assert told.endswith(f"{END}\nafter\n")
    assert "| `Sandbox.kill` | yes | normal, NotThere |" in told
    assert "javascript  L" in capsys.readouterr().out


def test_the_order_of_results_does_not_matter(page: Path, results: Path) -> None:
    compat_table.main()
    first = page.read_text()
    results.write_text("".join(reversed(results.read_text().splitlines(keepends=True))))
    assert compat_table.main() == 0
    assert page.read_text() == first


def test_what_comes_later(page: Path, results: Path) -> None:
    add(results, "javascript", "Sandbox.create", NOT_YET)
    assert compat_table.main() == 0
    assert "| `Sandbox.create` | not yet |" in page.read_text()


def test_one_failure_is_enough(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(results, "python", "Sandbox.kill", NORMAL, flavour="async", outcome="failed")
    add(results, "python", "Sandbox.kill", NORMAL, flavour="async")
    assert compat_table.main() == 1
    assert "| `Sandbox.kill` | async: failed, sync: yes |" in page.read_text()
    assert "python: Sandbox.kill is not green" in capsys.readouterr().err


def test_a_method_without_a_case(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in results.read_text().splitlines() if '"Git.push"' not in line]
    results.write_text("\n".join(lines) + "\n")
    listing = results.with_name("results.jsonl.surface.javascript")
    listing.write_text(json.dumps([{"class": "Sandbox", "method": m} for m in ("create", "kill")]))
    assert compat_table.main() == 1
    told = capsys.readouterr().err
    assert "python: Git.push is not green (untested)" in told
    assert "javascript: Sandbox.kill has no case" in told


def test_a_method_that_there_is_not(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(results, "javascript", "Sandbox.none", NORMAL)
    assert compat_table.main() == 1
    assert "Sandbox.none was tested but is no public method" in capsys.readouterr().err


def test_a_group_that_there_is_not(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(results, "cli", "sandbox dance", NORMAL, group="D")
    assert compat_table.main() == 1
    assert "cli: sandbox dance is in group 'D'" in capsys.readouterr().err


def test_a_suite_that_left_nothing(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results.with_name("results.jsonl.surface.javascript").unlink()
    assert compat_table.main() == 1
    assert "javascript: the suite left no list of methods" in capsys.readouterr().err


def test_comparing_writes_nothing(
    page: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = page.read_text()
    monkeypatch.setattr("sys.argv", ["compat_table", "--check"])
    assert compat_table.main() == 1
    assert page.read_text() == before
