"""`sandbox.pty` with the official Python package."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from e2b import (
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    SandboxException,
    TimeoutException,
)

from tests.compatibility.covering import covers, covers_error, only_async, only_sync
from tests.compatibility.flavours import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.compatibility.flavours import Sdk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

NO_PID = 999_999
SIZE = PtySize(rows=24, cols=80)


class Terminal:
    """A terminal, and what it has shown so far."""

    def __init__(self, flavour: str, opened: Callable[..., Any], **options: Any) -> None:
        self._opened, self._options = opened, options
        self._is_sync = flavour == "sync"
        self.shown = bytearray()
        self.handle: Any = None
        self.end: asyncio.Task[Any] | None = None

    async def open(self, *arguments: Any) -> Terminal:
        """Start listening; the two flavours take the listener at different places."""
        if self._is_sync:
            self.handle = await self._opened(*arguments, **self._options)
            ending = self.handle.wait(on_pty=self.shown.extend)
        else:
            self.handle = await self._opened(*arguments, on_data=self.shown.extend, **self._options)
            ending = self.handle.wait()
        self.end = asyncio.ensure_future(ending)
        return self

    async def shows(self, text: str) -> None:
        """Wait until the text was shown."""

        async def seen() -> bool:
            return text.encode() in self.shown

        await eventually(seen)


@pytest_asyncio.fixture(loop_scope="session")
async def open_terminal(box: Any, sdk: Sdk) -> AsyncIterator[Callable[..., Any]]:
    """Opens terminals that are gone after the test."""
    opened: list[Terminal] = []

    async def open_one(**options: Any) -> Terminal:
        opened.append(await Terminal(sdk.flavour, box.pty.create, **options).open(SIZE))
        return opened[-1]

    yield open_one
    for terminal in opened:
        await terminal.handle.kill()
        await asyncio.gather(terminal.end, return_exceptions=True)  # type: ignore[arg-type]


@covers("Pty.create", "Pty.send_stdin")
async def test_a_terminal(box: Any, open_terminal: Callable[..., Any]) -> None:
    terminal = await open_terminal(envs={"WORD": "magic"}, cwd="/tmp", user="root")
    say = "echo $((6*7))-$WORD-$PWD-$(whoami)-$TERM-$(stty size)\n"
    await box.pty.send_stdin(terminal.handle.pid, say.encode())
    await terminal.shows("42-magic-/tmp-root-xterm-256color-24 80")
    await box.pty.send_stdin(terminal.handle.pid, b"exit 0\n")
    assert (await terminal.end).exit_code == 0


@covers("Pty.resize")
async def test_another_size(box: Any, open_terminal: Callable[..., Any]) -> None:
    terminal = await open_terminal()
    await box.pty.resize(terminal.handle.pid, PtySize(rows=50, cols=132))
    await box.pty.send_stdin(terminal.handle.pid, b"echo =$(stty size)=\n")
    await terminal.shows("=50 132=")


@covers("Pty.connect")
async def test_a_second_listener(box: Any, sdk: Sdk, open_terminal: Callable[..., Any]) -> None:
    first = await open_terminal()
    second = await Terminal(sdk.flavour, box.pty.connect).open(first.handle.pid)
    await box.pty.send_stdin(first.handle.pid, b"echo $((7*7*7))\n")
    await first.shows("343")
    await second.shows("343")
    await box.pty.send_stdin(first.handle.pid, b"exit 0\n")
    assert (await second.end).exit_code == 0  # type: ignore[misc]


@covers("Pty.kill")
@covers_error("False when there is none", "Pty.kill")
async def test_killing_a_terminal(box: Any, open_terminal: Callable[..., Any]) -> None:
    terminal = await open_terminal()
    assert await box.pty.kill(terminal.handle.pid) is True
    with pytest.raises(CommandExitException):
        await terminal.end
    assert await box.pty.kill(NO_PID) is False


@only_sync
@covers("Pty.stream_input")
async def test_a_stream_of_keys(box: Any, open_terminal: Callable[..., Any]) -> None:
    terminal = await open_terminal()
    await box.pty.stream_input(terminal.handle.pid, ["echo $((11", "*11))\n"])
    await terminal.shows("121")


@only_async
@covers("Pty.stream_input", "CommandInputHandle.send", "CommandInputHandle.close")
async def test_a_stream_of_keys_by_a_handle(box: Any, open_terminal: Callable[..., Any]) -> None:
    terminal = await open_terminal()
    stream = await box.pty.stream_input(terminal.handle.pid)
    for keys in ("echo $((11", "*11))\n"):
        await stream.send(keys)
    await stream.close()
    await terminal.shows("121")


@covers_error(NotFoundException, "Pty.connect", "Pty.resize", "Pty.send_stdin")
async def test_no_such_terminal(box: Any, sdk: Sdk) -> None:
    for call in (
        Terminal(sdk.flavour, box.pty.connect).open(NO_PID),
        box.pty.resize(NO_PID, SIZE),
        box.pty.send_stdin(NO_PID, b"x"),
    ):
        with pytest.raises(NotFoundException, match=f"process with pid {NO_PID} not found"):
            await call


@only_sync
@covers_error(NotFoundException, "Pty.stream_input")
@covers_error(InvalidArgumentException, "Pty.stream_input")
async def test_keys_for_no_terminal(box: Any) -> None:
    with pytest.raises(NotFoundException):
        await box.pty.stream_input(NO_PID, ["x"])
    with pytest.raises(InvalidArgumentException, match="iterable"):
        await box.pty.stream_input(NO_PID, "x")


@only_async
@covers_error(NotFoundException, "Pty.stream_input")
async def test_keys_for_no_terminal_by_a_handle(box: Any) -> None:
    stream = await box.pty.stream_input(NO_PID)
    with pytest.raises(NotFoundException):
        await stream.close()


@covers_error(TimeoutException, "Pty.create")
async def test_a_terminal_that_stays_open_too_long(open_terminal: Callable[..., Any]) -> None:
    with pytest.raises(TimeoutException):
        await (await open_terminal(timeout=2)).end


@covers_error(InvalidArgumentException, "Pty.create")
async def test_a_terminal_where_there_is_nothing(open_terminal: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArgumentException, match="cwd '/none' does not exist"):
        await open_terminal(cwd="/none")


@covers_error(AuthenticationException, "Pty.create")
async def test_a_terminal_of_nobody(open_terminal: Callable[..., Any]) -> None:
    with pytest.raises(AuthenticationException, match="invalid username"):
        await open_terminal(user="nobody-here")


@covers_error(SandboxException, "Pty.resize")
async def test_a_command_has_no_size(box: Any) -> None:
    handle = await box.commands.run("sleep 60", background=True)
    with pytest.raises(SandboxException):
        await box.pty.resize(handle.pid, SIZE)
    await handle.kill()
