"""The released `@e2b/cli`, unmodified, against `emberbox up`, with an API key alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import termios
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from emberbox import Sandbox
from scripts.compat_table import ERROR, NORMAL, NOT_YET
from tests.compatibility.covering import append_result
from tests.compatibility.npm import JAVASCRIPT, NODE, environment_of
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stack import Stack

PROGRAM = JAVASCRIPT / "node_modules" / "@e2b" / "cli" / "dist" / "index.js"
NO_SANDBOX = "i00000000000000000000"
SECONDS = 120

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]

GROUPS = {
    "sandbox connect": "pty",
    "sandbox create": "L",
    "sandbox exec": "process",
    "sandbox info": "L",
    "sandbox kill": "L",
    "sandbox list": "L",
    "sandbox logs": "M",
    "sandbox metrics": "M",
    "sandbox pause": "S",
    "sandbox resume": "S",
    "sandbox snapshot": "S",
    "template create": "T",
    "template delete": "T",
    "template list": "T",
    "template publish": "T",
    "template unpublish": "T",
}
"""The commands that ask the server, and the groups of what they ask for."""

LOCAL = {"template init", "template migrate"}
"""The commands that only write files."""


@contextmanager
def covers(*commands: str, case: str = NORMAL) -> Iterator[None]:
    """A test is about these commands; what it shows is written down."""
    passed = False
    try:
        yield
        passed = True
    finally:
        for command in commands:
            append_result(
                sdk="cli",
                group=GROUPS[command],
                method=command,
                flavour="",
                case=case,
                outcome="passed" if passed else "failed",
            )


class Cli:
    """The command with the settings of one team."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: str, status: int = 0, stdin: str | None = None) -> str:
        """What it prints, errors included; its exit status must be this."""
        done = subprocess.run(
            [NODE, PROGRAM, *arguments],
            env=self.environment,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return _without_colours(done.stdout)

    @property
    def sdk(self) -> dict[str, Any]:
        """Options of our SDK for the same team."""
        names = ("api_key", "api_url", "sandbox_url")
        return {name: self.environment[f"E2B_{name.upper()}"] for name in names}

    def create(self) -> str:
        """The id of a new sandbox."""
        return self("sandbox", "create", "--detach", "base").strip()

    def listed(self, *options: str) -> list[dict[str, Any]]:
        """What `sandbox list` says as JSON."""
        listed: list[dict[str, Any]] = json.loads(
            self("sandbox", "list", "--format", "json", *options)
        )
        return listed


class Terminal:
    """The command on a terminal of its own, and all it has shown."""

    def __init__(self, cli: Cli, *arguments: str) -> None:
        self.shown = b""
        self._end, inner = os.openpty()
        self.resize(24, 80)
        self.process = subprocess.Popen(
            [NODE, PROGRAM, *arguments],
            env=cli.environment,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, text: str) -> None:
        """As if from a keyboard."""
        os.write(self._end, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size; the program is told by `signal_resize`."""
        termios.tcsetwinsize(self._end, (rows, columns))

    def signal_resize(self) -> None:
        """What the kernel does for the program in the foreground of a window."""
        self.process.send_signal(signal.SIGWINCH)

    def shows(self, text: str) -> None:
        """Wait until it was shown."""
        wait_until(lambda: text.encode() in self.shown or self.process.poll() is not None, SECONDS)
        assert text.encode() in self.shown, self.shown.decode(errors="replace")

    def close(self) -> int:
        """Its exit status; it is killed when it has not ended."""
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            os.close(self._end)

    def _read(self) -> None:
        try:
            while data := os.read(self._end, 65536):
                self.shown += data
        except OSError:  # the program has ended and its side is closed
            return


@pytest.fixture(scope="module")
def cli(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """For a team of its own, since `kill --all` is one of the commands."""
    return Cli(
        environment_of(
            stack,
            E2B_API_KEY=str(stack.sdk_of_new_team()["api_key"]),
            HOME=str(tmp_path_factory.mktemp("user")),
            NO_UPDATE_NOTIFIER="1",
        )
    )


@pytest.fixture
def sandbox(cli: Cli) -> Iterator[str]:
    sandbox_id = cli.create()
    yield sandbox_id
    cli("sandbox", "kill", sandbox_id)


def test_every_command_is_looked_at(cli: Cli) -> None:
    commands = {
        f"{group} {name}" for group in ("sandbox", "template") for name in _commands(cli, group)
    }
    assert commands - {"sandbox help", "template help"} == set(GROUPS) | LOCAL


def _commands(cli: Cli, group: str) -> list[str]:
    _, _, commands = cli(group, "--help").partition("Commands:\n")
    return re.findall(r"^  ([a-z]+)", commands, re.MULTILINE)


@covers("sandbox create", "sandbox list", "sandbox info", "sandbox kill")
@pytest.mark.smoke
def test_a_life(cli: Cli) -> None:
    sandbox_id = cli("sandbox", "create", "-d", "--timeout", "60", "base").strip()
    assert re.fullmatch("[a-z0-9]+", sandbox_id)
    assert sandbox_id in cli("sandbox", "list")
    (listed,) = cli.listed("--template", "base", "--state", "running", "--order", "asc")
    assert listed["sandboxId"] == sandbox_id
    assert cli.listed("--started-after", "2100-01-01T00:00:00Z") == []
    info = json.loads(cli("sandbox", "info", "--format", "json", sandbox_id))
    assert info["name"] == "base"
    assert "State: running" in cli("sandbox", "info", sandbox_id)
    assert "has been killed" in cli("sandbox", "kill", sandbox_id)
    assert "No sandboxes found" in cli("sandbox", "list")


@covers("sandbox kill", "sandbox list")
def test_killing_many(cli: Cli) -> None:
    with_metadata = _create_with_metadata(cli)
    other, another = cli.create(), cli.create()
    assert [entry["sandboxId"] for entry in cli.listed("--metadata", "kept=no")] == [with_metadata]
    assert "Killed 1 running" in cli("sandbox", "kill", "--all", "--metadata", "kept=no")
    assert {entry["sandboxId"] for entry in cli.listed()} == {other, another}
    assert "No running" in cli("sandbox", "kill", "--all", "--state", "paused")
    assert "Killed 2 running" in cli("sandbox", "kill", "--all")
    assert cli.listed() == []


def _create_with_metadata(cli: Cli) -> str:
    return Sandbox.create(metadata={"kept": "no"}, timeout=120, **cli.sdk).sandbox_id


@covers("sandbox exec")
def test_exec(cli: Cli, sandbox: str) -> None:
    options = ("--user", "root", "--cwd", "/tmp", "--env", "GIVEN=é")
    output = cli("sandbox", "exec", *options, sandbox, "whoami; pwd; echo $GIVEN; echo e >&2")
    assert sorted(output.split()) == sorted(["root", "/tmp", "é", "e"])
    assert cli("sandbox", "exec", sandbox, "cat", stdin="piped\n") == "piped\n"
    # Input that nobody reads is no error, even when the command has ended already.
    cli("sandbox", "exec", sandbox, "true", stdin="unread\n")


@covers("sandbox exec", case=ERROR + "exit status")
def test_exec_passes_the_status_on(cli: Cli, sandbox: str) -> None:
    assert "exit status 5" in cli("sandbox", "exec", sandbox, "exit 5", status=5)


@covers("sandbox exec")
def test_exec_in_the_background(cli: Cli, sandbox: str) -> None:
    pid = cli("sandbox", "exec", "--background", sandbox, "sleep", "300").strip()
    output = cli("sandbox", "exec", sandbox, f"tr '\\0' ' ' < /proc/{int(pid)}/cmdline")
    assert "sleep 300" in output


@covers("sandbox connect")
def test_a_terminal(cli: Cli, sandbox: str) -> None:
    terminal = Terminal(cli, "sandbox", "connect", "--cwd", "/tmp", "--env", "GIVEN=é", sandbox)
    try:
        terminal.type("echo $((40 + 2)) $PWD $GIVEN\n")
        terminal.shows("42 /tmp é")
        terminal.resize(31, 101)
        terminal.signal_resize()
        terminal.type("until stty size | grep '31 101'; do sleep 0.1; done; echo re''sized\n")
        terminal.shows("resized")
        terminal.type("exit\n")
        terminal.shows("Closing terminal connection")
    finally:
        assert terminal.close() == 0
    assert cli.listed()


@covers("sandbox create")
def test_a_sandbox_as_long_as_its_terminal(cli: Cli) -> None:
    terminal = Terminal(cli, "sandbox", "create", "base")
    try:
        terminal.type("echo $((40 + 2))-inside\n")
        terminal.shows("42-inside")
        terminal.type("exit\n")
        terminal.shows("Closing terminal connection")
    finally:
        assert terminal.close() == 0
    wait_until(lambda: cli.listed() == [], 60)


@covers("sandbox metrics")
def test_metrics(cli: Cli, sandbox: str) -> None:
    def seen() -> list[str]:
        return cli("sandbox", "metrics", "--format", "json", sandbox).split()

    wait_until(lambda: bool(seen()), 120)
    metric = json.loads(seen()[0])
    assert 0 < metric["memUsed"] < metric["memTotal"]
    assert re.search(r"CPU: .*Memory: .*Disk: ", cli("sandbox", "metrics", sandbox))


@covers("sandbox logs")
def test_logs(cli: Cli, sandbox: str) -> None:
    def seen() -> list[str]:
        options = ("--format", "json", "--level", "DEBUG")
        return cli("sandbox", "logs", *options, sandbox).strip().splitlines()

    cli("sandbox", "exec", sandbox, "echo logged")
    wait_until(lambda: bool(seen()), 120)
    for line in seen():
        assert {"timestamp", "level", "logger"} <= set(json.loads(line))
    assert sandbox in cli("sandbox", "logs", sandbox)


@covers("sandbox connect", "sandbox info", "sandbox exec", "sandbox logs", case=ERROR + "not found")
def test_a_sandbox_that_is_not_there(cli: Cli) -> None:
    assert "SandboxNotFoundError" in cli("sandbox", "connect", NO_SANDBOX, status=1)
    assert "wasn't found" in cli("sandbox", "info", NO_SANDBOX, status=1)
    assert "SandboxNotFoundError" in cli("sandbox", "exec", NO_SANDBOX, "true", status=1)
    assert "[404] not found" in cli("sandbox", "logs", NO_SANDBOX, status=1)


@covers("sandbox metrics", "sandbox kill", case=ERROR + "not found")
def test_others_on_a_sandbox_that_is_not_there(cli: Cli) -> None:
    assert "SandboxNotFoundError" in cli("sandbox", "metrics", NO_SANDBOX, status=1)
    assert "wasn't found" in cli("sandbox", "kill", NO_SANDBOX)


@covers("sandbox list", "sandbox create", case=ERROR + "unauthorized")
def test_a_key_that_nobody_has(cli: Cli) -> None:
    stranger = Cli({**cli.environment, "E2B_API_KEY": f"e2b_{'0' * 40}"})
    assert "AuthenticationError" in stranger("sandbox", "list", status=1)
    assert "AuthenticationError" in stranger("sandbox", "create", "-d", status=1)


@covers("sandbox create", case=ERROR + "not found")
def test_a_template_that_is_not_there(cli: Cli) -> None:
    output = cli("sandbox", "create", "--detach", "no-such", status=1)
    assert "template 'no-such' not found" in output


@covers("sandbox pause", "sandbox resume", "sandbox list", "sandbox info", "sandbox kill")
def test_pause_and_resume(cli: Cli, sandbox: str) -> None:
    cli("sandbox", "exec", sandbox, "echo in memory > /dev/shm/kept")
    assert "has been paused" in cli("sandbox", "pause", sandbox)
    assert "already" in cli("sandbox", "pause", sandbox)
    assert [entry["sandboxId"] for entry in cli.listed("--state", "paused")] == [sandbox]
    assert "State: paused" in cli("sandbox", "info", sandbox)
    assert "has been resumed" in cli("sandbox", "resume", sandbox)
    assert cli("sandbox", "exec", sandbox, "cat /dev/shm/kept") == "in memory\n"
    cli("sandbox", "pause", sandbox)
    assert "Killed 1 " in cli("sandbox", "kill", "--all", "--state", "paused")
    assert cli.listed("--state", "paused") == []


@covers("sandbox create", "sandbox exec")
def test_what_happens_at_the_deadline(cli: Cli) -> None:
    lifecycle = ("--lifecycle.ontimeout", "pause", "--lifecycle.autoresume")
    sandbox = cli("sandbox", "create", "-d", "--timeout", "60", *lifecycle, "base").strip()
    try:
        # The command takes no time limit that is shorter.
        Sandbox.set_timeout(sandbox, 1, **cli.sdk)
        wait_until(lambda: bool(cli.listed("--state", "paused")), 120)
        assert cli("sandbox", "exec", sandbox, "echo resumed") == "resumed\n"
    finally:
        cli("sandbox", "kill", sandbox)


@covers("sandbox snapshot")
def test_snapshots(cli: Cli, sandbox: str) -> None:
    cli("sandbox", "exec", sandbox, "echo kept > /home/user/kept")
    assert "kept:default" in cli("sandbox", "snapshot", "create", "--name", "kept", sandbox)
    listed = json.loads(cli("sandbox", "snapshot", "list", "--format", "json", sandbox))
    (snapshot,) = [entry["snapshotId"] for entry in listed]
    assert snapshot in cli("sandbox", "snapshot", "list", "--name", "kept")
    copy = cli("sandbox", "create", "-d", snapshot).strip()
    assert cli("sandbox", "exec", copy, "cat /home/user/kept") == "kept\n"
    cli("sandbox", "kill", copy)
    assert "deleted" in cli("sandbox", "snapshot", "delete", snapshot)
    assert snapshot not in cli("sandbox", "snapshot", "list")


@covers("sandbox pause", "sandbox resume", "sandbox snapshot", case=ERROR + "not found")
def test_pausing_what_is_not_there(cli: Cli) -> None:
    for command in (("pause",), ("resume",), ("snapshot", "create")):
        assert "wasn't found" in cli("sandbox", *command, NO_SANDBOX, status=1)
    assert "wasn't found" in cli("sandbox", "snapshot", "delete", "no-such")


@covers(*(command for command in GROUPS if command.startswith("template ")), case=NOT_YET)
def test_templates_come_later(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:12\nRUN true\n")
    for arguments in (
        ("list",),
        ("publish", "--yes", "own"),
        ("unpublish", "--yes", "own"),
        ("create", "--path", str(tmp_path), "own"),
    ):
        assert re.search("501.*not available", cli("template", *arguments, status=1))
    # Snapshots are deleted in this way, so it is there; only a template of one's own is not.
    assert re.search("404.*not found", cli("template", "delete", "--yes", "own", status=1))


def test_without_a_key(cli: Cli) -> None:
    nobody = Cli({**cli.environment, "E2B_API_KEY": ""})
    assert "E2B_API_KEY" in nobody("sandbox", "list", status=1)
    assert "Not logged in" in nobody("auth", "info")


def _without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
