"""Commands, in both flavours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox.sdk.connect_protocol import encode_frame

from .process_events import CONNECT, KEEPALIVE, START, STARTED, data, end
from .stand_in import Answer, StandIn, events, reply, until

if TYPE_CHECKING:
    from .conftest import Flavour


async def test_run(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on(
        "POST",
        START,
        events(STARTED, data("stdout", b"out"), KEEPALIVE, data("stderr", b"err"), end()),
    )
    result = await sdk.do(
        sandbox.commands.run, "echo", envs={"A": "1"}, user="root", cwd="/tmp", timeout=5
    )
    assert (result.stdout, result.stderr, result.exit_code, result.error) == ("out", "err", 0, None)
    request = server.requests[-1]
    assert request.message == {
        "process": {
            "cmd": "/bin/bash",
            "args": ["-l", "-c", "echo"],
            "envs": {"A": "1"},
            "cwd": "/tmp",
        },
        "stdin": False,
    }
    assert request.headers["content-type"] == "application/connect+json"
    assert request.headers["connect-protocol-version"] == "1"
    assert request.headers["connect-timeout-ms"] == "5000"
    assert request.headers["keepalive-ping-interval"] == "50"
    assert request.headers["authorization"] == "Basic cm9vdDo="
    assert request.headers["x-access-token"] == "envd-token"
    assert request.headers["e2b-sandbox-id"] == sandbox.sandbox_id
    assert request.headers["e2b-sandbox-port"] == "49983"


async def test_no_limit_sends_no_timeout(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, events(STARTED, end()))
    await sdk.do(sandbox.commands.run, "true", timeout=0)
    assert "connect-timeout-ms" not in server.requests[-1].headers


async def test_a_failing_command_raises(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, events(STARTED, data("stderr", b"no"), end(3, error="exit status 3")))
    with pytest.raises(emberbox.CommandExitException) as caught:
        await sdk.do(sandbox.commands.run, "false")
    error = caught.value
    assert (error.exit_code, error.stderr, error.stdout, error.error) == (
        3,
        "no",
        "",
        "exit status 3",
    )
    assert "exited with code 3" in str(error)
    assert isinstance(error, emberbox.SandboxException)


async def test_handlers_get_whole_characters(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    euro = "€".encode()
    server.on(
        "POST",
        START,
        events(STARTED, data("stdout", euro[:1]), data("stdout", euro[1:] + b"!\xe2"), end()),
    )
    out: list[str] = []
    err: list[str] = []
    result = await sdk.do(sandbox.commands.run, "x", on_stdout=out.append, on_stderr=err.append)
    assert out == ["€!", "\ufffd"]
    assert err == []
    assert result.stdout == "€!\ufffd"


async def test_handlers_that_are_coroutines(server: StandIn) -> None:
    sandbox = await emberbox.AsyncSandbox.create()
    server.on("POST", START, events(STARTED, data("stdout", b"a"), data("stderr", b"b"), end()))
    seen: list[str] = []

    async def note(piece: str) -> None:
        await asyncio.sleep(0)
        seen.append(piece)

    await sandbox.commands.run("x", on_stdout=note, on_stderr=note)
    assert seen == ["a", "b"]


async def test_output_that_is_not_kept(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, events(STARTED, data("stdout", b"a"), end()))
    seen: list[str] = []
    result = await sdk.do(sandbox.commands.run, "x", retain_output=False, on_stdout=seen.append)
    assert (result.stdout, result.stderr, seen) == (None, None, ["a"])


async def test_background(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, events(STARTED, data("stdout", b"a"), end()))
    server.on("POST", "/process.Process/SendInput", reply(200, {}))
    server.on("POST", "/process.Process/CloseStdin", reply(200, {}))
    server.on("POST", "/process.Process/SendSignal", reply(200, {}))
    handle = await sdk.do(sandbox.commands.run, "cat", background=True, stdin=True)
    assert isinstance(handle, emberbox.AsyncCommandHandle | emberbox.CommandHandle)
    assert handle.pid == 7
    assert server.requests[-1].message["stdin"] is True
    await sdk.do(handle.send_stdin, "hi")
    await sdk.do(handle.close_stdin)
    assert await sdk.do(handle.kill) is True
    result = await sdk.do(handle.wait)
    assert (result.stdout, handle.stdout, handle.stderr) == ("a", "a", "")
    assert (handle.exit_code, handle.error) == (0, None)
    assert [request.json for request in server.requests[-3:]] == [
        {"process": {"pid": 7}, "input": {"stdin": "aGk="}},
        {"process": {"pid": 7}},
        {"process": {"pid": 7}, "signal": "SIGNAL_SIGKILL"},
    ]
    assert await sdk.do(handle.wait) == result


async def test_an_async_command_is_followed_without_waiting(server: StandIn) -> None:
    sandbox = await emberbox.AsyncSandbox.create()
    server.on("POST", START, events(STARTED, data("stdout", b"a"), end()))
    seen = asyncio.Event()
    await sandbox.commands.run("x", background=True, on_stdout=lambda _piece: seen.set())
    await asyncio.wait_for(seen.wait(), 5)


async def test_a_sync_command_is_iterated(server: StandIn) -> None:
    server.on(
        "POST",
        START,
        events(STARTED, data("stdout", b"a"), data("stderr", b"b"), data("pty", b"c"), end()),
    )

    def follow() -> tuple[list[Any], int | None]:
        handle = emberbox.Sandbox.create().commands.run("x", background=True)
        assert handle.exit_code is None
        return list(handle), handle.exit_code

    assert await asyncio.to_thread(follow) == (
        [("a", None, None), (None, "b", None), (None, None, b"c")],
        0,
    )


async def test_a_sync_wait_takes_handlers(server: StandIn) -> None:
    server.on("POST", START, events(STARTED, data("stdout", b"a"), data("pty", b"c"), end()))
    out: list[str] = []
    pty: list[bytes] = []

    def follow() -> None:
        handle = emberbox.Sandbox.create().commands.run("x", background=True)
        handle.wait(on_stdout=out.append, on_pty=pty.append)

    await asyncio.to_thread(follow)
    assert (out, pty) == (["a"], [b"c"])


async def test_disconnect_leaves_the_command(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, Answer(200, [encode_frame(STARTED)], end="hang"))
    handle = await sdk.do(sandbox.commands.run, "sleep", background=True)
    await sdk.do(handle.disconnect)
    await sdk.do(handle.disconnect)
    assert handle.exit_code is None
    assert server.sent("/process.Process/SendSignal") == []


async def test_a_command_left_at_once_gives_up_its_connection(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", START, Answer(200, [encode_frame(STARTED)], end="hang"))
    handle = await sdk.do(sandbox.commands.run, "sleep", background=True)
    await sdk.do(handle.disconnect)
    assert await asyncio.wait_for(server.given_up.get(), 5) == START


async def test_cancelling_a_run_gives_up_its_connection(server: StandIn) -> None:
    sandbox = await emberbox.AsyncSandbox.create()
    server.on("POST", START, Answer(200, [encode_frame(STARTED)], end="hang"))
    running = asyncio.create_task(sandbox.commands.run("sleep"))
    await until(lambda: server.sent(START) != [])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.wait_for(server.given_up.get(), 5) == START
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "Consumer" in repr(task.get_coro())]


@pytest.mark.parametrize("pieces", [[], [encode_frame(KEEPALIVE)[:3]]])
async def test_a_stream_that_does_not_begin_in_time(server: StandIn, pieces: list[bytes]) -> None:
    sandbox = await emberbox.AsyncSandbox.create()
    server.on("POST", START, Answer(200, pieces, end="hang"))
    with pytest.raises(emberbox.TimeoutException, match="request_timeout"):
        await sandbox.commands.run("x", request_timeout=0.1)
    assert await asyncio.wait_for(server.given_up.get(), 5) == START


async def test_a_slow_handler_holds_the_output_back(server: StandIn) -> None:
    sandbox = await emberbox.AsyncSandbox.create()
    piece = encode_frame(data("stdout", b"x" * 32768))
    total = 2000
    server.on("POST", START, Answer(200, [encode_frame(STARTED), *[piece] * total], end="hang"))
    called, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_piece: str) -> None:
        called.set()
        await go_on.wait()

    handle = await sandbox.commands.run("yes", background=True, on_stdout=slow)
    await asyncio.wait_for(called.wait(), 5)
    before = -1
    while server.pieces != before:  # until the network takes no more
        before = server.pieces
        await asyncio.sleep(0.2)
    assert server.pieces < total
    go_on.set()
    await until(lambda: server.pieces > before)
    await handle.disconnect()


async def test_connect(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", CONNECT, events(STARTED, data("stdout", b"later"), end()))
    handle = await sdk.do(sandbox.commands.connect, 7)
    assert (await sdk.do(handle.wait)).stdout == "later"
    assert server.requests[-1].message == {"process": {"pid": 7}}


async def test_connect_to_nothing(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    missing = {"code": "not_found", "message": "process with pid 9 not found"}
    server.on("POST", CONNECT, events(error=missing))
    with pytest.raises(emberbox.NotFoundException, match="pid 9"):
        await sdk.do(sandbox.commands.connect, 9)


async def test_list(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    config = {"cmd": "/bin/bash", "args": ["-c", "x"], "envs": {"A": "1"}, "cwd": "/tmp"}
    server.on(
        "POST",
        "/process.Process/List",
        reply(200, {"processes": [{"config": config, "pid": 7, "tag": "t"}, {"pid": 8}]}),
    )
    first, second = await sdk.do(sandbox.commands.list)
    assert first == emberbox.ProcessInfo(7, "t", "/bin/bash", ["-c", "x"], {"A": "1"}, "/tmp")
    assert (second.tag, second.cwd, second.args) == (None, None, [])


async def test_kill_of_nothing(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on(
        "POST",
        "/process.Process/SendSignal",
        reply(404, {"code": "not_found", "message": "process with pid 9 not found"}),
    )
    assert await sdk.do(sandbox.commands.kill, 9) is False


async def test_stdin_of_nothing(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    missing = reply(404, {"code": "not_found", "message": "process with pid 9 not found"})
    server.on("POST", "/process.Process/SendInput", missing)
    with pytest.raises(emberbox.NotFoundException):
        await sdk.do(sandbox.commands.send_stdin, 9, b"x")


async def test_what_the_sandbox_refuses(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    for code, expected in {
        "invalid_argument": emberbox.InvalidArgumentException,
        "unauthenticated": emberbox.AuthenticationException,
        "internal": emberbox.SandboxException,
    }.items():
        server.on("POST", START, events(error={"code": code, "message": "because"}))
        with pytest.raises(expected, match="because"):
            await sdk.do(sandbox.commands.run, "x")


async def test_a_command_that_exceeds_its_timeout(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    exceeded = {"code": "deadline_exceeded", "message": "too long"}
    server.on("POST", START, events(STARTED, data("stdout", b"a"), error=exceeded))
    handle = await sdk.do(sandbox.commands.run, "sleep 9", timeout=1, background=True)
    with pytest.raises(emberbox.TimeoutException, match="too long"):
        await sdk.do(handle.wait)
    with pytest.raises(emberbox.TimeoutException, match="too long"):
        await sdk.do(handle.wait)
    assert handle.stdout == "a"


async def test_a_stream_that_does_not_begin_with_the_start(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", START, events(end()))
    with pytest.raises(emberbox.SandboxException, match="not with its start"):
        await sdk.do(sandbox.commands.run, "x")


async def test_an_end_without_its_envelope_is_enough(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", START, Answer(200, [encode_frame(STARTED), encode_frame(end())]))
    assert (await sdk.do(sandbox.commands.run, "x")).exit_code == 0


async def test_a_stream_without_an_end(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, Answer(200, [encode_frame(STARTED)]))
    with pytest.raises(emberbox.SandboxException, match="without an end event"):
        await sdk.do(sandbox.commands.run, "x")


async def test_a_stream_that_ends_in_a_message(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, Answer(200, [encode_frame(STARTED), encode_frame(end())[:-3]]))
    with pytest.raises(emberbox.SandboxException, match="middle of a message"):
        await sdk.do(sandbox.commands.run, "x")


async def test_a_message_that_is_too_large(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, Answer(200, [encode_frame(STARTED), b"\x00\x7f\xff\xff\xff"]))
    with pytest.raises(emberbox.SandboxException, match="limit"):
        await sdk.do(sandbox.commands.run, "x")
