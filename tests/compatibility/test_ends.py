"""What the official Python package says of a sandbox that is gone, unreachable or not ours.

All calls over envd end alike, so they are listed once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from e2b import (
    AuthenticationException,
    PtySize,
    SandboxNotRunningException,
    SandboxUnreachableException,
)

from tests.compatibility.covering import covers_error, only_async, only_sync
from tests.compatibility.flavours import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compatibility.flavours import Sdk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

PID = 1
SIZE = PtySize(rows=24, cols=80)

CALLS: dict[str, Callable[[Any], Any]] = {
    "Commands.run": lambda box: box.commands.run("true"),
    "Commands.list": lambda box: box.commands.list(),
    "Commands.connect": lambda box: box.commands.connect(PID),
    "Commands.kill": lambda box: box.commands.kill(PID),
    "Commands.send_stdin": lambda box: box.commands.send_stdin(PID, "x"),
    "Commands.close_stdin": lambda box: box.commands.close_stdin(PID),
    "Pty.kill": lambda box: box.pty.kill(PID),
    "Pty.send_stdin": lambda box: box.pty.send_stdin(PID, b"x"),
    "Pty.resize": lambda box: box.pty.resize(PID, SIZE),
    "Filesystem.exists": lambda box: box.files.exists("x"),
    "Filesystem.get_info": lambda box: box.files.get_info("x"),
    "Filesystem.list": lambda box: box.files.list("."),
    "Filesystem.make_dir": lambda box: box.files.make_dir("x"),
    "Filesystem.remove": lambda box: box.files.remove("x"),
    "Filesystem.rename": lambda box: box.files.rename("x", "y"),
    "Filesystem.read": lambda box: box.files.read("x"),
    "Filesystem.write": lambda box: box.files.write("x", "x"),
    "Filesystem.write_files": lambda box: box.files.write_files([{"path": "x", "data": "x"}]),
    "Git.status": lambda box: box.git.status("x"),
}

SYNC_CALLS: dict[str, Callable[[Any], Any]] = {
    "Commands.stream_input": lambda box: box.commands.stream_input(PID, ["x"]),
    "Pty.stream_input": lambda box: box.pty.stream_input(PID, ["x"]),
    "Pty.create": lambda box: box.pty.create(SIZE),
    "Pty.connect": lambda box: box.pty.connect(PID),
    "Filesystem.watch_dir": lambda box: box.files.watch_dir("."),
}

ASYNC_CALLS: dict[str, Callable[[Any], Any]] = {
    "Pty.create": lambda box: box.pty.create(SIZE, on_data=_ignore),
    "Pty.connect": lambda box: box.pty.connect(PID, on_data=_ignore),
    "Filesystem.watch_dir": lambda box: box.files.watch_dir(".", on_event=_ignore),
}


def _ignore(_: object) -> None: ...


def each_call(error: type[Exception], *names: str) -> pytest.MarkDecorator:
    """One test for each call, or for those named, in both flavours."""
    tables: list[tuple[dict[str, Callable[[Any], Any]], list[pytest.MarkDecorator]]] = [
        (CALLS, []),
        (SYNC_CALLS, [only_sync]),
        (ASYNC_CALLS, [only_async]),
    ]
    return pytest.mark.parametrize(
        "call",
        [
            pytest.param(call, marks=[*marks, covers_error(error, name)], id=name)
            for table, marks in tables
            for name, call in table.items()
            if not names or name in names
        ],
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gone(sdk: Sdk) -> Any:
    """A sandbox that was killed."""
    sandbox = await sdk.Sandbox.create()
    await sandbox.kill()
    return sandbox


@each_call(SandboxNotRunningException)
async def test_after_a_kill(gone: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(SandboxNotRunningException, match="was not found"):
        await call(gone)


@each_call(AuthenticationException)
async def test_with_a_wrong_token(sdk: Sdk, box: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(AuthenticationException, match=r"unauthorized access|does not match"):
        await call(sdk.reach(box.sandbox_id, 49983, "f" * 64))


@each_call(
    SandboxUnreachableException,
    *("Commands.run", "Commands.list", "Filesystem.list", "Filesystem.read", "Filesystem.write"),
)
async def test_at_a_closed_port(sdk: Sdk, box: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(SandboxUnreachableException, match="port is not open"):
        await call(sdk.reach(box.sandbox_id, 8001, "f" * 64))


@covers_error(SandboxNotRunningException, "CommandHandle.wait")
async def test_a_kill_while_a_command_runs(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    handle = await box.commands.run("sleep 100", background=True)
    end = asyncio.ensure_future(handle.wait())
    # The wait must have begun: only then is its stream read.
    await box.commands.list()
    await box.kill()
    with pytest.raises(SandboxNotRunningException, match=r"(?i)killed|not found"):
        await end


@only_async
@covers_error(SandboxNotRunningException, "Filesystem.watch_dir")
async def test_a_kill_while_a_directory_is_watched(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    ends: list[Exception | None] = []
    await box.files.watch_dir(".", on_event=_ignore, on_exit=ends.append)
    await box.kill()

    async def ended() -> bool:
        return bool(ends)

    await eventually(ended)
    assert isinstance(ends[0], SandboxNotRunningException)


@only_sync
@covers_error(SandboxNotRunningException, "WatchHandle.get_new_events", "WatchHandle.stop")
async def test_a_watcher_of_a_sandbox_that_is_gone(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    handle = await box.files.watch_dir(".")
    await box.kill()
    for call in (handle.get_new_events(), handle.stop()):
        with pytest.raises(SandboxNotRunningException):
            await call


@covers_error(SandboxNotRunningException, "CommandHandle.kill")
@covers_error(SandboxNotRunningException, "CommandHandle.send_stdin", "CommandHandle.close_stdin")
async def test_a_handle_of_a_sandbox_that_is_gone(new_box: Callable[..., Any]) -> None:
    box = await new_box()
    handle = await box.commands.run("cat", background=True, stdin=True)
    await box.kill()
    for call in (handle.kill(), handle.send_stdin("x"), handle.close_stdin()):
        with pytest.raises(SandboxNotRunningException):
            await call
