"""The released `e2b` package, unmodified, against `emberbox up`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    NotFoundException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxQuery,
    TimeoutException,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def e2b_environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three variables that a user of the official SDK sets."""
    for name, value in stack.sdk.items():
        monkeypatch.setenv(f"E2B_{name.upper()}", value)


@pytest.fixture
def sandbox(e2b_environment: None) -> Iterator[Sandbox]:
    sandbox = Sandbox.create(timeout=120, metadata={"suite": "compat"})
    yield sandbox
    sandbox.kill()


def test_create_run_files_kill(sandbox: Sandbox) -> None:
    assert sandbox.is_running()
    assert sandbox.commands.run("echo hello").stdout == "hello\n"
    sandbox.files.write("/home/user/a.txt", "content")
    assert sandbox.files.read("/home/user/a.txt") == "content"
    assert [entry.name for entry in sandbox.files.list("/home/user") if entry.name == "a.txt"]
    assert sandbox.kill()
    assert not sandbox.is_running()
    assert not sandbox.kill()


def test_commands(sandbox: Sandbox) -> None:
    with pytest.raises(CommandExitException) as failed:
        sandbox.commands.run("exit 7")
    assert failed.value.exit_code == 7
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 30", timeout=2)
    heard: list[str] = []
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "typed\n")
    assert handle.pid in [process.pid for process in sandbox.commands.list()]
    sandbox.commands.close_stdin(handle.pid)
    handle.wait(on_stdout=heard.append)
    assert "".join(heard) == "typed\n"
    sleeper = sandbox.commands.run("sleep 60", background=True)
    assert sandbox.commands.kill(sleeper.pid)
    assert not sandbox.commands.kill(999_999)


def test_files(sandbox: Sandbox) -> None:
    files = sandbox.files
    assert files.make_dir("/home/user/d/e")
    assert not files.make_dir("/home/user/d/e")
    files.write("/home/user/d/f", b"\x00\xff")
    assert files.read("/home/user/d/f", format="bytes") == b"\x00\xff"
    assert files.get_info("/home/user/d/f").size == 2
    files.rename("/home/user/d/f", "/home/user/d/g")
    assert not files.exists("/home/user/d/f")
    files.remove("/home/user/d")
    with pytest.raises((FileNotFoundException, NotFoundException)):
        files.read("/home/user/d/g")


def test_information_and_listing(sandbox: Sandbox) -> None:
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.name == "base"
    assert info.metadata == {"suite": "compat"}
    sandbox.set_timeout(300)
    assert sandbox.get_info().end_at > info.end_at
    listed = Sandbox.list(query=SandboxQuery(metadata={"suite": "compat"})).next_items()
    assert [entry.sandbox_id for entry in listed] == [sandbox.sandbox_id]
    again = Sandbox.connect(sandbox.sandbox_id)
    assert again.commands.run("echo again").stdout == "again\n"


def test_errors_of_the_control_plane(e2b_environment: None) -> None:
    with pytest.raises(AuthenticationException):
        Sandbox.create(api_key="e2b_" + "0" * 40)
    with pytest.raises(SandboxException, match="404: template 'no-such' not found"):
        Sandbox.create("no-such")
    with pytest.raises(SandboxNotFoundException):
        Sandbox.connect("i00000000000000000000")


def test_what_is_not_there_yet_says_so(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxException, match=r"501.*not available"):
        sandbox.pause()
    with pytest.raises(SandboxException, match=r"501.*not available"):
        sandbox.get_metrics()


async def test_the_async_flavour(e2b_environment: None) -> None:
    sandbox = await AsyncSandbox.create(timeout=120)
    try:
        assert (await sandbox.commands.run("echo async")).stdout == "async\n"
        await sandbox.files.write("/home/user/x", "y")
        assert await sandbox.files.read("/home/user/x") == "y"
    finally:
        assert await sandbox.kill()


@pytest.mark.parametrize("sdk", ["emberbox", "e2b"])
def test_the_quickstart_runs_with_either_sdk(stack: Stack, sdk: str) -> None:
    prefix = sdk.upper()
    variables = {f"{prefix}_{name.upper()}": value for name, value in stack.sdk.items()}
    done = subprocess.run(
        [sys.executable, EXAMPLES / "quickstart.py"],
        env={**os.environ, **variables, "EMBERBOX_QUICKSTART_SDK": sdk},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
