"""`sandbox.commands` and the handles it gives, with the official Python package."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from e2b import (
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    TimeoutException,
)

from tests.compatibility.covering import covers, covers_error, only_async, only_sync
from tests.compatibility.flavours import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

NO_PID = 999_999


@covers("Commands.run")
async def test_what_a_command_says_and_returns(box: Any) -> None:
    heard: dict[str, list[str]] = {"out": [], "err": []}
    result = await box.commands.run(
        "echo out; echo err >&2", on_stdout=heard["out"].append, on_stderr=heard["err"].append
    )
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)
    assert ("".join(heard["out"]), "".join(heard["err"])) == ("out\n", "err\n")


@covers("Commands.run")
async def test_where_and_as_whom_a_command_runs(box: Any) -> None:
    asked = "echo $PWD $(whoami) $GREETING $E2B_SANDBOX $E2B_SANDBOX_ID"
    plain = await box.commands.run(asked, envs={"GREETING": "hi"})
    assert plain.stdout == f"/home/user user hi true {box.sandbox_id}\n"
    other = await box.commands.run(asked, user="root", cwd="/tmp")
    assert other.stdout == f"/tmp root true {box.sandbox_id}\n"
    assert (await box.commands.run("sudo whoami")).stdout == "root\n"


@covers("Commands.run")
async def test_much_output_in_many_bytes(box: Any) -> None:
    result = await box.commands.run("for i in $(seq 20000); do printf 'ä€🐍'; done")
    assert result.stdout == "ä€🐍" * 20_000


@covers("Commands.run")
async def test_output_that_is_not_kept(box: Any) -> None:
    heard: list[str] = []
    result = await box.commands.run("echo gone", on_stdout=heard.append, retain_output=False)
    assert (result.stdout, heard) == (None, ["gone\n"])


@covers_error(CommandExitException, "Commands.run", "CommandHandle.wait")
async def test_a_command_that_fails(box: Any) -> None:
    with pytest.raises(CommandExitException) as failed:
        await box.commands.run("echo before; echo why >&2; exit 7")
    error = failed.value
    assert (error.exit_code, error.stdout, error.stderr) == (7, "before\n", "why\n")
    handle = await box.commands.run("exit 3", background=True)
    with pytest.raises(CommandExitException, match="code 3"):
        await handle.wait()


@covers_error(TimeoutException, "Commands.run", "CommandHandle.wait")
async def test_a_command_that_takes_too_long_is_killed(box: Any) -> None:
    with pytest.raises(TimeoutException):
        await box.commands.run("exec -a toolong sleep 60", timeout=1)
    with pytest.raises(TimeoutException):  # it may take that long to start, too
        await (await box.commands.run("exec -a toolong sleep 60", True, timeout=2)).wait()

    async def killed() -> bool:
        running = await box.commands.list()
        return not any("toolong" in " ".join(process.args) for process in running)

    await eventually(killed)


@covers_error(InvalidArgumentException, "Commands.run")
async def test_a_directory_that_is_not_there(box: Any) -> None:
    with pytest.raises(InvalidArgumentException, match="cwd '/none' does not exist"):
        await box.commands.run("true", cwd="/none")


@covers_error(AuthenticationException, "Commands.run")
async def test_a_user_that_is_not_there(box: Any) -> None:
    with pytest.raises(AuthenticationException, match="invalid username: 'nobody-here'"):
        await box.commands.run("true", user="nobody-here")


@covers("Commands.run", "Commands.list", "Commands.connect", "CommandHandle.wait")
async def test_a_command_in_the_background(box: Any) -> None:
    started = await box.commands.run("until [ -e go ]; do sleep 0.1; done; echo went", True)
    found = [one for one in await box.commands.list() if one.pid == started.pid]
    assert [(one.cmd, one.args[:2]) for one in found] == [("/bin/bash", ["-l", "-c"])]
    other = await box.commands.connect(started.pid)
    await box.files.write("go", "")
    assert (await started.wait()).stdout == "went\n"
    assert (await other.wait()).stdout == "went\n"


@covers("CommandHandle.disconnect", "Commands.connect")
async def test_a_command_outlives_who_started_it(box: Any) -> None:
    command = "until [ -e alone ]; do sleep 0.1; done; echo done"
    handle = await box.commands.run(command, background=True)
    await handle.disconnect()
    again = await box.commands.connect(handle.pid)
    await box.files.write("alone", "")
    assert (await again.wait()).stdout == "done\n"


@covers("Commands.connect")
async def test_how_a_command_ended_is_known_for_a_while(box: Any) -> None:
    ended = await box.commands.run("exit 0", background=True)
    await ended.wait()
    assert (await (await box.commands.connect(ended.pid)).wait()).exit_code == 0


@covers("Commands.kill", "CommandHandle.kill")
@covers_error("False when there is none", "Commands.kill", "CommandHandle.kill")
async def test_killing_a_command(box: Any) -> None:
    one, two = [await box.commands.run("sleep 60", background=True) for _ in range(2)]
    assert await box.commands.kill(one.pid) is True
    assert await two.kill() is True
    for handle in (one, two):
        with pytest.raises(CommandExitException) as killed:
            await handle.wait()
        assert killed.value.exit_code == -1

    async def forgotten() -> bool:
        return not (await box.commands.kill(one.pid) or await two.kill())

    await eventually(forgotten)
    assert await box.commands.kill(NO_PID) is False


@covers("Commands.send_stdin", "Commands.close_stdin")
@covers("CommandHandle.send_stdin", "CommandHandle.close_stdin")
async def test_standard_input(box: Any) -> None:
    one = await box.commands.run("cat", background=True, stdin=True)
    await box.commands.send_stdin(one.pid, "text, ")
    await box.commands.send_stdin(one.pid, b"bytes\n")
    await box.commands.close_stdin(one.pid)
    assert (await one.wait()).stdout == "text, bytes\n"
    two = await box.commands.run("cat", background=True, stdin=True)
    await two.send_stdin("by handle\n")
    await two.close_stdin()
    assert (await two.wait()).stdout == "by handle\n"


@covers_error(SandboxException, "Commands.send_stdin", "CommandHandle.send_stdin")
async def test_a_command_without_standard_input(box: Any) -> None:
    handle = await box.commands.run("sleep 60", background=True)
    for call in (box.commands.send_stdin(handle.pid, "x"), handle.send_stdin("x")):
        with pytest.raises(SandboxException, match=r"(?i)stdin"):
            await call
    await handle.kill()


@covers_error(NotFoundException, "Commands.connect", "Commands.send_stdin", "Commands.close_stdin")
async def test_no_such_command(box: Any) -> None:
    commands = box.commands
    for call in (
        commands.connect(NO_PID),
        commands.send_stdin(NO_PID, "x"),
        commands.close_stdin(NO_PID),
    ):
        with pytest.raises(NotFoundException, match=f"process with pid {NO_PID} not found"):
            await call


@covers_error(SandboxException, "CommandHandle.send_stdin", "CommandHandle.close_stdin")
async def test_input_for_a_command_that_ended(box: Any) -> None:
    handle = await box.commands.run("true", background=True, stdin=True)
    await handle.wait()
    for call in (handle.send_stdin("late"), handle.close_stdin()):
        with pytest.raises(SandboxException):
            await call


@only_sync
@covers("Commands.stream_input")
async def test_a_stream_of_input(box: Any) -> None:
    handle = await box.commands.run("head -c 400000 | md5sum", background=True, stdin=True)
    chunks = [b"0123456789" * 1000 for _ in range(40)]
    await box.commands.stream_input(handle.pid, chunks)
    assert (await handle.wait()).stdout == f"{await _md5_inside(box, 40_000)}  -\n"


@only_async
@covers("Commands.stream_input", "CommandInputHandle.send", "CommandInputHandle.close")
async def test_a_stream_of_input_by_a_handle(box: Any) -> None:
    handle = await box.commands.run("head -c 400000 | md5sum", background=True, stdin=True)
    stream = await box.commands.stream_input(handle.pid)
    for _ in range(40):
        await stream.send(b"0123456789" * 1000)
    await stream.close()
    assert (await handle.wait()).stdout == f"{await _md5_inside(box, 40_000)}  -\n"


@only_async
@covers_error(SandboxException, "CommandInputHandle.send")
async def test_a_stream_that_is_closed(box: Any) -> None:
    handle = await box.commands.run("cat", background=True, stdin=True)
    stream = await box.commands.stream_input(handle.pid)
    await stream.close()
    with pytest.raises(SandboxException, match="closed"):
        await stream.send("late")
    await handle.kill()


@only_sync
@covers_error(NotFoundException, "Commands.stream_input")
@covers_error(InvalidArgumentException, "Commands.stream_input")
async def test_a_stream_that_cannot_start(box: Any) -> None:
    with pytest.raises(NotFoundException):
        await box.commands.stream_input(NO_PID, ["x"])
    with pytest.raises(InvalidArgumentException, match="iterable"):
        await box.commands.stream_input(NO_PID, "x")


@only_async
@covers_error(NotFoundException, "CommandInputHandle.send", "CommandInputHandle.close")
async def test_a_handle_of_a_stream_that_cannot_start(box: Any) -> None:
    stream = await box.commands.stream_input(NO_PID)
    with pytest.raises(NotFoundException):
        await stream.close()
    with pytest.raises(NotFoundException):
        await stream.send("x")


@only_sync
@covers_error(TimeoutException, "Commands.stream_input")
async def test_a_stream_that_takes_too_long(box: Any) -> None:
    handle = await box.commands.run("cat", background=True, stdin=True)
    over = threading.Event()

    def slow() -> Iterator[str]:
        yield "first\n"
        over.wait(20)

    with pytest.raises(TimeoutException):
        await box.commands.stream_input(handle.pid, slow(), timeout=1)
    over.set()
    await handle.kill()


@only_async
@covers_error(TimeoutException, "CommandInputHandle.send", "CommandInputHandle.close")
async def test_a_handle_of_a_stream_that_takes_too_long(box: Any) -> None:
    handle = await box.commands.run("cat >/dev/null", background=True, stdin=True)
    stream = await box.commands.stream_input(handle.pid, timeout=1)

    async def refused() -> bool:
        try:
            await stream.send("again\n")
        except TimeoutException:
            return True
        return False

    await eventually(refused)
    with pytest.raises(TimeoutException):
        await stream.close()
    await handle.kill()


async def _md5_inside(box: Any, times: int) -> str:
    done = await box.commands.run(f"yes 0123456789 | tr -d '\\n' | head -c {times}0 | md5sum")
    return str(done.stdout.split()[0])
