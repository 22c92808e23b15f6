"""What importing costs, and that the generated half is up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

SERVER_PACKAGES = {
    "alembic", "click", "connectrpc", "fastapi", "google", "grpc", "httptools", "prometheus_client",
    "pydantic", "pydantic_settings", "qemu", "rich", "sqlalchemy", "starlette", "structlog",
    "uvicorn", "uvloop",
}  # fmt: skip


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, check=True, text=True
    ).stdout
    return set(json.loads(output))


def test_importing_the_package_loads_nothing_else() -> None:
    before = modules_after("pass")
    extra = {name for name in modules_after("import emberbox") - before if "." in name}
    assert not {name for name in extra if name.startswith("emberbox.")}


def test_the_sdk_needs_no_server_package() -> None:
    loaded = modules_after("from emberbox import Sandbox, AsyncSandbox")
    assert not {name.split(".")[0] for name in loaded} & SERVER_PACKAGES
    own = {name for name in loaded if name.startswith("emberbox.")}
    assert {name for name in own if not name.startswith("emberbox.sdk")} == set()


def test_everything_at_once() -> None:
    modules_after("from emberbox import *\nAsyncSandbox, Sandbox, SandboxException")


def test_an_unknown_name_is_an_import_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        modules_after("from emberbox import Nothing")


def test_the_generated_half_is_up_to_date() -> None:
    script = [sys.executable, str(ROOT / "scripts/unasync.py"), "--check"]
    check = subprocess.run(script, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def test_sockets_are_closed_when_a_program_ends() -> None:
    """Neither flavour leaves a connection open for the collector to complain about."""
    program = ROOT / "tests/unit/sdk/ends_quietly.py"
    command = [sys.executable, "-W", "error", str(program)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
