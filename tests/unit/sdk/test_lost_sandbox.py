"""What is raised when the sandbox, its daemon or the connection is away; both flavours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox.sdk.connect_protocol import encode_frame

from .stand_in import Answer, StandIn, events, reply

if TYPE_CHECKING:
    from .conftest import Flavour

START = "/process.Process/Start"
STAT = "/filesystem.Filesystem/Stat"
STARTED = encode_frame({"event": {"start": {"pid": 7}}})
GONE = reply(502, {"code": 502, "message": "The sandbox was not found"})
CLOSED = reply(502, {"code": 502, "message": "The sandbox is running but port is not open"})
OTHER = Answer(502, b"<html>bad gateway</html>")
HEALTHY = reply(204)


@pytest.mark.parametrize(
    ("answer", "health", "expected"),
    [
        (GONE, GONE, emberbox.SandboxNotRunningException),
        (CLOSED, CLOSED, emberbox.SandboxUnreachableException),
        (OTHER, GONE, emberbox.SandboxNotRunningException),
        (OTHER, HEALTHY, emberbox.SandboxUnreachableException),
    ],
)
async def test_the_proxy_answers_instead(
    sdk: Flavour,
    server: StandIn,
    sandbox: Any,
    answer: Answer,
    health: Answer,
    expected: type[Exception],
) -> None:
    server.on("GET", "/health", health)
    for path in (START, STAT):
        server.on("POST", path, answer)
    with pytest.raises(expected):
        await sdk.do(sandbox.commands.run, "x")
    with pytest.raises(expected):
        await sdk.do(sandbox.files.exists, "x")


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (GONE, emberbox.SandboxNotRunningException),
        (CLOSED, emberbox.SandboxUnreachableException),
        (HEALTHY, emberbox.SandboxUnreachableException),
        (Answer(end="reset"), emberbox.SandboxUnreachableException),
        (reply(409, {"message": "moving"}), emberbox.SandboxUnreachableException),
    ],
)
async def test_a_stream_that_breaks(
    sdk: Flavour, server: StandIn, sandbox: Any, health: Answer, expected: type[Exception]
) -> None:
    server.on("POST", START, Answer(200, [STARTED], end="reset"))
    server.on("GET", "/health", health)
    with pytest.raises(expected) as caught:
        await sdk.do(sandbox.commands.run, "x")
    assert type(caught.value) is expected
    assert isinstance(caught.value, emberbox.TimeoutException)


async def test_a_stream_that_the_server_calls_unavailable(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", START, events(error={"code": "unavailable", "message": "lost"}))
    server.on("GET", "/health", GONE)
    with pytest.raises(emberbox.SandboxNotRunningException):
        await sdk.do(sandbox.commands.run, "x")


async def test_a_download_that_breaks(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/files", Answer(200, [b"part"], end="reset"))
    server.on("GET", "/health", GONE)
    with pytest.raises(emberbox.SandboxNotRunningException):
        await sdk.do(sandbox.files.read, "x")


async def test_nobody_listens(sdk: Flavour, server: StandIn) -> None:
    sandbox = await sdk.do(sdk.Sandbox.create, sandbox_url="http://127.0.0.1:1")
    with pytest.raises(emberbox.SandboxUnreachableException):
        await sdk.do(sandbox.files.exists, "x")


async def test_a_call_that_is_not_answered_in_time(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", STAT, Answer(200, [], end="hang"))
    with pytest.raises(emberbox.TimeoutException, match="request_timeout"):
        await sdk.do(sandbox.files.exists, "x", request_timeout=0.1)
    assert server.requests[-1].headers["connect-timeout-ms"] == "100"


async def test_a_stream_that_outlives_its_limit(
    sdk: Flavour, server: StandIn, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flavour in ("_async", "_sync"):
        monkeypatch.setattr(f"emberbox.sdk.{flavour}.envd.STREAM_MARGIN_SECONDS", 0.1)
    server.on("POST", START, Answer(200, [STARTED], end="hang"))
    with pytest.raises(emberbox.TimeoutException):
        await sdk.do(sandbox.commands.run, "x", timeout=0.1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(HEALTHY, True), (reply(200), True), (GONE, False), (CLOSED, False), (OTHER, False)],
)
async def test_is_running(
    sdk: Flavour, server: StandIn, sandbox: Any, answer: Answer, expected: bool
) -> None:
    server.on("GET", "/health", answer)
    assert await sdk.do(sandbox.is_running) is expected


async def test_is_running_without_the_right(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/health", reply(401, {"code": 401, "message": "no"}))
    with pytest.raises(emberbox.AuthenticationException):
        await sdk.do(sandbox.is_running)


async def test_is_running_asks_again_when_a_kept_connection_died(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("GET", "/health", Answer(end="reset", body=[]), GONE)
    assert await sdk.do(sandbox.is_running) is False
