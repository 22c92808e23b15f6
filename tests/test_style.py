"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST_FILE = 500
LONGEST_FUNCTION = 60

REGISTRIES = re.compile(
    r"""pypi\.org|pythonhosted\.org|npmjs\.(org|com)|yarnpkg\.com|proxy\.golang\.org
    |deb\.debian\.org|(security|ftp|archive|snapshot)\.debian\.org|\w+\.ubuntu\.com
    |crates\.io|docker\.io|quay\.io|ghcr\.io|gcr\.io|artifactory|\bnexus\b
    |(--|PIP_|UV_)(extra[-_])?index[-_]url\s*[=\s]\s*\S*://""",
    re.VERBOSE | re.IGNORECASE,
)
"""Hosts that packages come from: which one is used is the machine's configuration, not ours."""


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository that exist, generated code left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if "_gen" not in path.parts and path.exists()]


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked("*.py")
        if (lines := path.read_text().count("\n")) > LONGEST_FILE
    }
    assert not long, f"split these files (more than {LONGEST_FILE} lines)"


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": size
        for path in tracked("src/*.py", "scripts/*.py", "benchmarks/*.py", "examples/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert not long, f"split these functions (more than {LONGEST_FUNCTION} lines)"


def test_no_file_names_a_registry() -> None:
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if REGISTRIES.search(line)
    ]
    assert not named


@pytest.mark.timeout(120)
@pytest.mark.parametrize("script", ["scripts/generate", "scripts/unasync.py"])
def test_generated_code_is_in_date(script: str) -> None:
    interpreter = [sys.executable] if script.endswith(".py") else []
    checked = subprocess.run(
        [*interpreter, ROOT / script, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
