"""Terminals, watched directories and input streams of our own SDK, in a real sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox import (
    AsyncSandbox,
    AsyncWriteEntry,
    CommandExitException,
    FileNotFoundException,
    FilesystemEvent,
    FilesystemEventType,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    SandboxException,
    SandboxNotRunningException,
    TimeoutException,
)
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from emberbox import Sandbox
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

EXAMPLES = Path(__file__).parents[3] / "examples"
NO_PROCESS = 999_999


@pytest.fixture
async def sandbox(stack: Stack) -> AsyncIterator[AsyncSandbox]:
    sandbox = await AsyncSandbox.create(timeout=120, **stack.sdk)
    yield sandbox
    await sandbox.kill()


class Screen:
    """What a terminal has shown."""

    def __init__(self) -> None:
        self.shown = b""
        self._more = asyncio.Event()

    def show(self, output: bytes) -> None:
        self.shown += output
        self._more.set()

    async def wait_for(self, wanted: bytes) -> None:
        async with asyncio.timeout(30):
            while wanted not in self.shown:
                self._more.clear()
                await self._more.wait()


async def test_a_terminal_has_its_size_and_can_be_resized(sandbox: AsyncSandbox) -> None:
    screen = Screen()
    shell = await sandbox.pty.create(PtySize(rows=30, cols=100), screen.show, envs={"A": "b"})
    await sandbox.pty.send_stdin(shell.pid, b"stty size; echo $TERM-$A\n")
    await screen.wait_for(b"30 100\r\nxterm-256color-b")
    await sandbox.pty.resize(shell.pid, PtySize(rows=40, cols=120))
    await sandbox.pty.send_stdin(shell.pid, b"stty size; exit 3\n")
    await screen.wait_for(b"40 120")
    with pytest.raises(CommandExitException) as ended:
        await shell.wait()
    assert ended.value.exit_code == 3


async def test_a_terminal_is_left_and_found_again(sandbox: AsyncSandbox) -> None:
    shell = await sandbox.pty.create(PtySize(24, 80), Screen().show, timeout=0)
    await shell.disconnect()
    assert shell.pid in [process.pid for process in await sandbox.commands.list()]
    screen = Screen()
    again = await sandbox.pty.connect(shell.pid, screen.show)
    async with sandbox.pty.stream_input(shell.pid) as typed:
        await typed.send("echo $((6 * 7))\n")
        await screen.wait_for(b"\r42\r\n")
    assert await sandbox.pty.kill(shell.pid)
    with pytest.raises(CommandExitException):
        await again.wait()
    assert not await sandbox.pty.kill(NO_PROCESS)


async def test_calls_about_a_process_that_is_not_there(sandbox: AsyncSandbox) -> None:
    with pytest.raises(NotFoundException):
        await sandbox.pty.connect(NO_PROCESS, print)
    with pytest.raises(NotFoundException):
        await sandbox.pty.send_stdin(NO_PROCESS, b"x")
    with pytest.raises(NotFoundException):
        await sandbox.pty.resize(NO_PROCESS, PtySize(24, 80))
    for group in (sandbox.commands, sandbox.pty):
        typed = group.stream_input(NO_PROCESS)
        with pytest.raises(NotFoundException):
            await typed.close()


async def test_a_terminal_that_cannot_be(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="/no/such"):
        await sandbox.pty.create(PtySize(24, 80), print, cwd="/no/such")
    with pytest.raises(InvalidArgumentException):
        await sandbox.pty.create(PtySize(100_000, 80), print)
    shell = await sandbox.pty.create(PtySize(24, 80), Screen().show)
    with pytest.raises(InvalidArgumentException, match="Ctrl-D"):
        await shell.close_stdin()


@pytest.mark.exhaustive
async def test_a_terminal_past_its_time(sandbox: AsyncSandbox) -> None:
    shell = await sandbox.pty.create(PtySize(24, 80), Screen().show, timeout=1)
    with pytest.raises(TimeoutException):
        await shell.wait()


def test_a_terminal_is_read_as_it_is_iterated(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    shell = sandbox.pty.create(PtySize(rows=30, cols=100))
    sandbox.pty.send_stdin(shell.pid, b"stty size; exit\n")
    output = b"".join(pty or b"" for _, _, pty in shell)
    assert b"30 100" in output
    assert shell.exit_code == 0


@pytest.mark.exhaustive
async def test_much_input_arrives_in_order(sandbox: AsyncSandbox) -> None:
    content = secrets.token_bytes(4 << 20)
    hashing = await sandbox.commands.run("sha256sum", background=True, stdin=True)
    async with sandbox.commands.stream_input(hashing.pid) as typed:
        for start in range(0, len(content), 100_000):
            await typed.send(content[start : start + 100_000])
    await hashing.close_stdin()
    assert (await hashing.wait()).stdout.split()[0] == hashlib.sha256(content).hexdigest()


@pytest.mark.exhaustive
def test_input_of_an_iterable(create: Callable[..., Sandbox]) -> None:
    sandbox = create()

    def lines() -> Iterator[str]:
        for number in range(1000):
            yield f"{number}\n"

    counting = sandbox.commands.run("wc -l", background=True, stdin=True)
    sandbox.commands.stream_input(counting.pid, lines())
    counting.close_stdin()
    assert counting.wait().stdout == "1000\n"
    with pytest.raises(NotFoundException):
        sandbox.commands.stream_input(NO_PROCESS, ["x"])


async def test_a_command_that_does_not_read_its_input(sandbox: AsyncSandbox) -> None:
    sleeping = await sandbox.commands.run("sleep 100", background=True, stdin=True)

    async def type_for_ever() -> None:
        async with sandbox.commands.stream_input(sleeping.pid, timeout=2) as typed:
            while True:
                await typed.send(b"x" * (256 << 10))

    with pytest.raises(TimeoutException):
        await type_for_ever()
    assert await sleeping.kill()


async def test_a_watch_tells_what_happens(sandbox: AsyncSandbox) -> None:
    events: asyncio.Queue[FilesystemEvent] = asyncio.Queue()
    ends: list[Exception | None] = []
    await sandbox.files.make_dir("/home/user/d")
    watch = await sandbox.files.watch_dir(
        "/home/user/d", events.put_nowait, ends.append, include_entry=True
    )
    await sandbox.files.write("/home/user/d/new", "text")
    async with asyncio.timeout(30):
        kinds = [(await events.get()).type for _ in range(2)]
        written = await events.get()
    assert kinds == [FilesystemEventType.CREATE, FilesystemEventType.CHMOD]
    assert (written.name, written.type) == ("new", FilesystemEventType.WRITE)
    assert written.entry is not None
    assert (written.entry.path, written.entry.size) == ("/home/user/d/new", 4)
    await watch.stop()
    assert ends == [None]


async def test_a_recursive_watch_takes_new_directories_in(sandbox: AsyncSandbox) -> None:
    seen: set[str] = set()
    await sandbox.files.make_dir("/home/user/d/sub")
    watch = await sandbox.files.watch_dir(
        "/home/user/d", lambda event: seen.add(event.name), recursive=True
    )
    await sandbox.files.write("/home/user/d/sub/a", "1")
    await sandbox.files.make_dir("/home/user/d/later")
    await asyncio.to_thread(wait_until, lambda: {"sub/a", "later"} <= seen, 30)
    await sandbox.files.write("/home/user/d/later/b", "2")
    await asyncio.to_thread(wait_until, lambda: "later/b" in seen, 30)
    await watch.stop()


def test_a_watch_is_polled(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.files.make_dir("/home/user/d")
    watch = sandbox.files.watch_dir("/home/user/d")
    assert watch.get_new_events() == []
    sandbox.files.write("/home/user/d/a", "1")
    events: list[FilesystemEvent] = []

    def all_came() -> bool:
        events.extend(watch.get_new_events())
        return len(events) >= 3

    wait_until(all_came, 30)
    kinds = FilesystemEventType
    assert [event.type for event in events] == [kinds.CREATE, kinds.CHMOD, kinds.WRITE]
    watch.stop()
    with pytest.raises(SandboxException, match="stopped"):
        watch.get_new_events()


async def test_what_cannot_be_watched(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/home/user/file", "x")
    with pytest.raises(FileNotFoundException):
        await sandbox.files.watch_dir("/no/such", print)
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.watch_dir("/home/user/file", print)


def test_what_cannot_be_polled(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.files.write("/home/user/file", "x")
    with pytest.raises(FileNotFoundException):
        sandbox.files.watch_dir("/no/such")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.watch_dir("/home/user/file")


async def test_streams_of_a_sandbox_that_is_killed(sandbox: AsyncSandbox) -> None:
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    await sandbox.files.watch_dir("/home/user", print, ended.set_result)
    shell = await sandbox.pty.create(PtySize(24, 80), Screen().show)
    typed = sandbox.pty.stream_input(shell.pid)
    await typed.send("sleep 100\n")
    await sandbox.kill()
    with pytest.raises(SandboxNotRunningException):
        await shell.wait()
    assert isinstance(await asyncio.wait_for(ended, 30), SandboxNotRunningException)
    with pytest.raises(SandboxNotRunningException):
        await typed.close()


async def test_files_of_one_form_and_of_octet_streams(sandbox: AsyncSandbox) -> None:
    names = ["ü %22", 'quo"te', "sub/dir/plain"]
    for way in (None, True, False):
        files: list[AsyncWriteEntry] = [{"path": name, "data": f"{name} {way}"} for name in names]
        infos = await sandbox.files.write_files(
            files, use_octet_stream=way, metadata={"Way": str(way)}
        )
        assert [info.path for info in infos] == [f"/home/user/{name}" for name in names]
        for name in names:
            assert await sandbox.files.read(name) == f"{name} {way}"
            assert (await sandbox.files.get_info(name)).metadata == {"way": str(way)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("example", ["terminal.py", "watch.py"])
def test_the_examples_run_as_they_are(stack: Stack, example: str) -> None:
    settings = {f"EMBERBOX_{name.upper()}": value for name, value in stack.sdk.items()}
    done = subprocess.run(
        [sys.executable, EXAMPLES / example],
        env={**os.environ, **settings},
        input=b"echo $((6 * 7))\nexit 5\n",
        capture_output=True,
        check=False,
        timeout=120,
    )
    expected = {"terminal.py": (5, b"42\r\n"), "watch.py": (0, b"create  finished")}[example]
    assert done.returncode == expected[0], done.stderr
    assert expected[1] in done.stdout
