"""Terminals, in both flavours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox import PtySize
from emberbox.sdk.connect_protocol import encode_frame

from .process_events import CONNECT, START, STARTED, data, end
from .stand_in import Answer, StandIn, events, reply

if TYPE_CHECKING:
    from .conftest import Flavour

MISSING = reply(404, {"code": "not_found", "message": "process with pid 9 not found"})
ENVIRONMENT = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def on_data(sdk: Flavour, seen: list[bytes]) -> dict[str, Any]:
    """What the flavour's `create` and `connect` take to give output to."""
    return {"on_data": seen.append} if sdk.is_async else {}


async def wait(sdk: Flavour, handle: Any, seen: list[bytes]) -> Any:
    return await sdk.do(handle.wait, **({} if sdk.is_async else {"on_pty": seen.append}))


async def test_create(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, events(STARTED, data("pty", b"\xe2\x82"), data("pty", b"\xac"), end()))
    seen: list[bytes] = []
    handle = await sdk.do(
        sandbox.pty.create,
        PtySize(rows=24, cols=80),
        **on_data(sdk, seen),
        user="root",
        cwd="/tmp",
        envs={"A": "1", "TERM": "dumb"},
        timeout=5,
    )
    assert isinstance(handle, emberbox.AsyncCommandHandle | emberbox.CommandHandle)
    assert handle.pid == 7
    result = await wait(sdk, handle, seen)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert seen == [b"\xe2\x82", b"\xac"]
    request = server.requests[-1]
    assert request.message == {
        "process": {
            "cmd": "/bin/bash",
            "args": ["-i", "-l"],
            "envs": {**ENVIRONMENT, "A": "1", "TERM": "dumb"},
            "cwd": "/tmp",
        },
        "pty": {"size": {"rows": 24, "cols": 80}},
    }
    assert request.headers["authorization"] == "Basic cm9vdDo="
    assert request.headers["connect-timeout-ms"] == "5000"


async def test_handlers_that_are_coroutines(server: StandIn) -> None:
    sandbox = await emberbox.AsyncSandbox.create()
    server.on("POST", START, events(STARTED, data("pty", b"a"), end()))
    seen: list[bytes] = []

    async def note(piece: bytes) -> None:
        await asyncio.sleep(0)
        seen.append(piece)

    await (await sandbox.pty.create(PtySize(24, 80), note)).wait()
    assert seen == [b"a"]


async def test_a_shell_that_fails(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, events(STARTED, end(3, error="exit status 3")))
    handle = await sdk.do(sandbox.pty.create, PtySize(24, 80), **on_data(sdk, []))
    with pytest.raises(emberbox.CommandExitException) as caught:
        await sdk.do(handle.wait)
    assert caught.value.exit_code == 3


async def test_what_the_sandbox_refuses(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    for code, expected in {
        "invalid_argument": emberbox.InvalidArgumentException,
        "unauthenticated": emberbox.AuthenticationException,
    }.items():
        server.on("POST", START, events(error={"code": code, "message": "because"}))
        with pytest.raises(expected, match="because"):
            await sdk.do(sandbox.pty.create, PtySize(24, 80), **on_data(sdk, []))


async def test_connect(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", CONNECT, events(STARTED, data("pty", b"later"), end()))
    seen: list[bytes] = []
    handle = await sdk.do(sandbox.pty.connect, 7, **on_data(sdk, seen), timeout=0)
    await wait(sdk, handle, seen)
    assert seen == [b"later"]
    request = server.requests[-1]
    assert request.message == {"process": {"pid": 7}}
    assert "connect-timeout-ms" not in request.headers


async def test_connect_to_nothing(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    missing = {"code": "not_found", "message": "process with pid 9 not found"}
    server.on("POST", CONNECT, events(error=missing))
    with pytest.raises(emberbox.NotFoundException, match="pid 9"):
        await sdk.do(sandbox.pty.connect, 9, **on_data(sdk, []))


async def test_calls_about_a_terminal(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    for method in ("SendInput", "Update", "SendSignal"):
        server.on("POST", f"/process.Process/{method}", reply(200, {}))
    await sdk.do(sandbox.pty.send_stdin, 7, b"x", request_timeout=3)
    assert server.requests[-1].headers["connect-timeout-ms"] == "3000"
    await sdk.do(sandbox.pty.resize, 7, PtySize(rows=50, cols=132))
    assert await sdk.do(sandbox.pty.kill, 7) is True
    assert [request.json for request in server.requests[-3:]] == [
        {"process": {"pid": 7}, "input": {"pty": "eA=="}},
        {"process": {"pid": 7}, "pty": {"size": {"rows": 50, "cols": 132}}},
        {"process": {"pid": 7}, "signal": "SIGNAL_SIGKILL"},
    ]


async def test_calls_about_nothing(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    for method in ("SendInput", "Update", "SendSignal"):
        server.on("POST", f"/process.Process/{method}", MISSING)
    with pytest.raises(emberbox.NotFoundException):
        await sdk.do(sandbox.pty.send_stdin, 9, b"x")
    with pytest.raises(emberbox.NotFoundException):
        await sdk.do(sandbox.pty.resize, 9, PtySize(24, 80))
    assert await sdk.do(sandbox.pty.kill, 9) is False


async def test_the_handle_of_a_terminal(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", START, Answer(200, [encode_frame(STARTED)], end="hang"))
    server.on("POST", "/process.Process/SendInput", reply(200, {}))
    refusal = {"code": "invalid_argument", "message": "a pty has no stdin to close"}
    server.on("POST", "/process.Process/CloseStdin", reply(400, refusal))
    handle = await sdk.do(sandbox.pty.create, PtySize(24, 80), **on_data(sdk, []))
    await sdk.do(handle.send_stdin, "ls\n")
    assert server.requests[-1].json == {"process": {"pid": 7}, "input": {"pty": "bHMK"}}
    with pytest.raises(emberbox.InvalidArgumentException, match="no stdin"):
        await sdk.do(handle.close_stdin)
    await sdk.do(handle.disconnect)
    assert await asyncio.wait_for(server.given_up.get(), 5) == START
