"""The entry points as a shell sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(words),
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_names_every_command_and_loads_none() -> None:
    code = """
import sys
from emberbox.cli.main import main
try:
    main()
finally:
    heavy = {"grpc", "pydantic", "rich", "sqlalchemy", "fastapi"} & set(sys.modules)
    assert not heavy, heavy
"""
    done = run(sys.executable, "-c", code, "--help")
    assert done.returncode == 0, done.stderr
    names = ["up", "doctor", "api-server", "client-proxy", "orchestrator", "team", "key"]
    names += ["nodes", "node", "events", "images"]
    listed = [line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines() if line]
    assert listed == [*names, "sandboxes", "snapshots", "version"]


@pytest.mark.parametrize("program", ["api-server", "client-proxy", "orchestrator"])
def test_the_thin_executables_are_the_commands(program: str) -> None:
    thin = run(str(BIN / program), "--help")
    command = run(str(BIN / "emberbox"), program, "--help")
    assert thin.returncode == command.returncode == 0
    options = thin.stdout.partition("Options:")[2]
    assert options
    assert options == command.stdout.partition("Options:")[2]


def test_without_the_server_extra_one_line_says_how_to_get_it() -> None:
    code = """
import sys
sys.modules["click"] = None
from emberbox.cli.main import main
main()
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 1
    assert done.stderr == (
        "emberbox: the servers are not installed (click is missing): "
        "run pip install 'emberbox[server]'\n"
    )


def test_what_keeps_a_server_from_starting_is_one_line(tmp_path: Path) -> None:
    done = run(str(BIN / "api-server"), "--port", "many", "--home", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("emberbox: EMBERBOX_API_PORT: Input should be a valid integer")
    assert done.stderr.count("\n") == 1


def test_an_unknown_command_is_click_s_error() -> None:
    done = run(str(BIN / "emberbox"), "nothing")
    assert done.returncode == 2
    assert "No such command 'nothing'" in done.stderr
