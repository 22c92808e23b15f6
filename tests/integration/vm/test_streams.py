"""Streams of commands all the way: many at once, readers that stop or vanish, nonsense."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox import CommandHandle, Sandbox
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]

MIB = 1024 * 1024
PATIENCE = 60.0


def written_by(sandbox: Sandbox, pid: int) -> int:
    """Bytes that a command has written so far."""
    lines = sandbox.commands.run(f"cat /proc/{pid}/io").stdout.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def wait_until_blocked(sandbox: Sandbox, pid: int) -> int:
    """Until a command has stopped writing; how much it wrote."""
    before = -1

    def still() -> bool:
        nonlocal before
        known, before = before, written_by(sandbox, pid)
        return before == known

    wait_until(still, PATIENCE)
    return before


def envd_resident_bytes(sandbox: Sandbox) -> int:
    """Memory of the daemon in the guest."""
    status = sandbox.commands.run("cat /proc/$PPID/status").stdout
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


@pytest.mark.exhaustive
def test_reader_that_stops_blocks_its_command_and_nobody_else(
    create: Callable[..., Sandbox],
) -> None:
    sandbox = create(timeout=300)
    before = envd_resident_bytes(sandbox)
    handle = sandbox.commands.run("exec yes", background=True, timeout=0)
    stuck = wait_until_blocked(sandbox, handle.pid)
    assert sandbox.commands.run("echo others").stdout == "others\n"
    assert written_by(sandbox, handle.pid) == stuck
    assert envd_resident_bytes(sandbox) < before + 16 * MIB
    handle.kill()


def test_command_lives_on_when_its_reader_goes(create: Callable[..., Sandbox]) -> None:
    sandbox = create(timeout=300)
    handle = sandbox.commands.run("exec cat", background=True, stdin=True, timeout=0)
    handle.disconnect()
    again = sandbox.commands.connect(handle.pid)
    sandbox.commands.send_stdin(handle.pid, "still here")
    sandbox.commands.close_stdin(handle.pid)
    assert again.wait().stdout == "still here"


@pytest.mark.exhaustive
def test_reader_that_stops_is_left_behind_by_another(create: Callable[..., Sandbox]) -> None:
    """The first handle is never read, as happens to those of background commands."""
    sandbox = create(timeout=300)
    total = 20 * MIB
    command = f"read go; head -c {total} /dev/zero | tr '\\0' x"
    unread = sandbox.commands.run(command, background=True, stdin=True, timeout=0)
    reading = sandbox.commands.connect(unread.pid, timeout=0)
    sandbox.commands.send_stdin(unread.pid, "go\n")
    assert len(reading.wait().stdout) == total
    unread.disconnect()


@pytest.mark.exhaustive
@pytest.mark.timeout(900)  # 200 login shells, on a machine that may be busy with other tests
def test_200_commands_at_once(create: Callable[..., Sandbox]) -> None:
    sandbox = create(timeout=900)
    before = envd_resident_bytes(sandbox)
    command = "read number; printf %020000d $number"
    handles = [
        sandbox.commands.run(command, background=True, stdin=True, timeout=0) for _ in range(200)
    ]
    assert len(sandbox.commands.list()) == 200

    def finish(numbered: tuple[int, CommandHandle]) -> bool:
        number, handle = numbered
        sandbox.commands.send_stdin(handle.pid, f"{number}\n")
        return handle.wait().stdout == f"{number:020000}"

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(finish, enumerate(handles)))
    assert envd_resident_bytes(sandbox) < before + 64 * MIB


def envd_of(sandbox: Sandbox, stack: Stack) -> httpx2.Client:
    """HTTP to envd as the SDK speaks it."""
    headers = {
        "E2b-Sandbox-Id": sandbox.sandbox_id,
        "E2b-Sandbox-Port": "49983",
        "X-Access-Token": sandbox._access.envd_access_token or "",
    }
    return httpx2.Client(base_url=stack.facts["sandbox_url"], headers=headers, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"[" * 1_000_000, 400, "invalid_argument"),
        (b"{", 400, "invalid_argument"),
        (b" " * 33 * MIB, 429, "resource_exhausted"),
    ],
    ids=["nested", "cut", "oversize"],
)
def test_nonsense_is_refused(
    create: Callable[..., Sandbox], stack: Stack, content: bytes, status: int, code: str
) -> None:
    sandbox = create()
    with envd_of(sandbox, stack) as client:
        headers = {"Content-Type": "application/json"}
        answer = client.post("/process.Process/List", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert sandbox.commands.run("echo well").stdout == "well\n"


def test_request_that_is_cut_off(create: Callable[..., Sandbox], stack: Stack) -> None:
    sandbox = create()
    with envd_of(sandbox, stack) as client:
        fields = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items())
    where = urlsplit(stack.facts["sandbox_url"])
    head = (
        "POST /process.Process/Start HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Content-Type: application/connect+json\r\nContent-Length: 37\r\n"
    )
    for part in (b"", b"\0\0\0", b"\0\0\0\0\x20{"):
        with socket.create_connection((where.hostname, where.port), PATIENCE) as peer:
            peer.sendall(f"{head}{fields}\r\n".encode() + part)
    assert sandbox.commands.run("echo well").stdout == "well\n"
