"""What goes on in a sandbox does not notice that it was paused; what comes from outside does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from emberbox import PtySize, Sandbox, SandboxException
from tests.integration.vm import guest_lives
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import CommandHandle

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(600)]

ROUNDS = 4
COUNTS = "/dev/shm/lives"
PORT = 8642
# Answers with a first line at once, and never ends.
ENDLESS = f"""
import socket
head = b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
kept = []
with socket.create_server(("", {PORT})) as server:
    while True:
        client, _ = server.accept()
        client.recv(65536)
        client.sendall(head + b"6\\r\\nhello\\n\\r\\n")
        kept.append(client)
"""


class Lives:
    """The programs of `guest_lives` in one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._seen: dict[str, int] = {}

    def begin(self) -> None:
        source = Path(guest_lives.__file__).read_text()
        self._sandbox.files.write("/root/guest_lives.py", source, user="root")
        self._sandbox.commands.run(f"mkdir {COUNTS}", user="root")
        for name in guest_lives.LIVES:
            self._sandbox.commands.run(
                f"python3 /root/guest_lives.py {name} {COUNTS}",
                background=True,
                timeout=0,
                user="root",
            )

    def go_on(self, *names: str, seconds: float = 120) -> None:
        """Return when each of them has counted on. Fails when one has found something wrong."""
        waiting = set(names or guest_lives.LIVES)

        def all_have() -> bool:
            counts = self._counts()
            waiting.difference_update(
                name for name in tuple(waiting) if counts.get(name, 0) > self._seen.get(name, 0)
            )
            if not waiting:
                self._seen = counts
            return not waiting

        wait_until(all_have, seconds)

    def _counts(self) -> dict[str, int]:
        told = self._sandbox.commands.run(
            f"cd {COUNTS}; cat *.failed 2>/dev/null && exit 1; grep -H . [a-z]* || true",
            user="root",
        ).stdout
        lines = (line.partition(":") for line in told.splitlines() if ".next:" not in line)
        return {name: int(count) for name, _, count in lines}


def test_timers_sockets_disks_and_pages_of_both_processors_go_on(
    create: Callable[..., Sandbox],
) -> None:
    sandbox = create(timeout=900)
    assert sandbox.get_info().cpu_count == 2
    lives = Lives(sandbox)
    lives.begin()
    quick = sorted(set(guest_lives.LIVES) - {"timers"})
    lives.go_on(*quick)
    for _ in range(ROUNDS):
        sandbox.pause()
        sandbox.connect(timeout=900)
        lives.go_on(*quick)
        assert abs(float(sandbox.commands.run("date +%s.%N").stdout) - time.time()) < 5
    lives.go_on("timers")


def test_a_terminal_goes_on(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=0)
    sandbox.pty.send_stdin(terminal.pid, b"kept=41\n")
    sandbox.pause()
    sandbox.connect(timeout=120)
    again = sandbox.pty.connect(terminal.pid, timeout=60)
    sandbox.pty.send_stdin(terminal.pid, b"echo is $((kept + 1))\n")
    seen = b""
    for _stdout, _stderr, output in again:
        seen += output or b""
        if b"is 42" in seen:
            break
    assert b"is 42" in seen


def test_connections_from_outside_are_reset(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    command = sandbox.commands.run("echo begun; sleep 600", background=True, timeout=0)
    assert next(iter(command))[0] == "begun\n"
    sandbox.files.write("/home/user/endless.py", ENDLESS)
    sandbox.commands.run("python3 /home/user/endless.py", background=True, timeout=0)
    with sandbox.http(PORT) as client:
        wait_until(lambda: _answers(client), 60)
        with client.stream("GET", "/") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "hello"
            sandbox.pause()
            # Who reads is told, and does not wait for ever.
            with pytest.raises(httpx2.TransportError):
                next(lines)
        with pytest.raises(SandboxException):
            _follow(command)
        sandbox.connect(timeout=120)
        # The server has its clients of before, and takes new ones.
        wait_until(lambda: _answers(client), 60)
    assert command.pid in [process.pid for process in sandbox.commands.list()]


def _answers(client: httpx2.Client) -> bool:
    with client.stream("GET", "/") as answer:
        return answer.status_code == 200 and next(answer.iter_lines()) == "hello"


def _follow(command: CommandHandle) -> None:
    for _ in command:
        pass
