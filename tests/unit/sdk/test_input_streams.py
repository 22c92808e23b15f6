"""Streams of input to commands and terminals, in both flavours."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox.sdk.connect_protocol import END_OF_STREAM, encode_frame

from .stand_in import Answer, StandIn, events, reply, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Flavour

PATH = "/process.Process/StreamInput"
START = {"start": {"process": {"pid": 7}}}
NO_PROCESS = {"code": "not_found", "message": "process with pid 7 not found"}
HANGING = Answer(200, [], early=True, end="hang")
GONE = reply(502, {"code": 502, "message": "The sandbox was not found"})


async def send(sdk: Flavour, group: Any, pieces: list[str | bytes], **options: Any) -> None:
    """Stream the pieces in the way of the flavour."""
    if sdk.is_async:
        async with group.stream_input(7, **options) as handle:
            for piece in pieces:
                await handle.send(piece)
    else:
        await asyncio.to_thread(group.stream_input, 7, iter(pieces), **options)


def data(kind: str, raw: bytes) -> dict[str, Any]:
    return {"data": {"input": {kind: base64.b64encode(raw).decode()}}}


@pytest.mark.parametrize(("group", "kind"), [("commands", "stdin"), ("pty", "pty")])
async def test_input_is_sent_in_order(
    sdk: Flavour, server: StandIn, sandbox: Any, group: str, kind: str
) -> None:
    server.on("POST", PATH, events({}))
    await send(sdk, getattr(sandbox, group), ["ü", b"two", ""])
    (request,) = server.sent(PATH)
    assert request.messages == [START, data(kind, "ü".encode()), data(kind, b"two")]
    assert request.headers["content-type"] == "application/connect+json"
    assert request.headers["connect-timeout-ms"] == "60000"


@pytest.mark.parametrize("timeout", [0, None])
async def test_no_limit_sends_no_timeout(
    sdk: Flavour, server: StandIn, sandbox: Any, timeout: int | None
) -> None:
    server.on("POST", PATH, events({}))
    await send(sdk, sandbox.commands, ["x"], timeout=timeout)
    assert "connect-timeout-ms" not in server.requests[-1].headers


async def test_a_large_piece_is_cut(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", PATH, events({}))
    content = bytes(range(256)) * 4096
    await send(sdk, sandbox.commands, [content])
    _, *pieces = server.requests[-1].messages
    sent = [base64.b64decode(piece["data"]["input"]["stdin"]) for piece in pieces]
    assert len(sent) > 1
    assert b"".join(sent) == content


async def test_no_input_at_all(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", PATH, events({}))
    await send(sdk, sandbox.commands, [])
    assert server.requests[-1].messages == [START]


@pytest.mark.parametrize("early", [True, False])
async def test_input_to_nothing(sdk: Flavour, server: StandIn, sandbox: Any, early: bool) -> None:
    last = encode_frame({"error": NO_PROCESS}, END_OF_STREAM)
    server.on("POST", PATH, Answer(200, [last], early=early))
    with pytest.raises(emberbox.NotFoundException, match="pid 7"):
        await send(sdk, sandbox.commands, ["x"] * 5)


async def test_the_sandbox_ends_meanwhile(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", PATH, Answer(end="reset", body=[], early=True))
    server.on("GET", "/health", GONE)
    with pytest.raises(emberbox.SandboxNotRunningException):
        await send(sdk, sandbox.commands, [b"x" * 100_000] * 100)


async def test_the_sandbox_says_that_time_is_up(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", PATH, events(error={"code": "deadline_exceeded", "message": "too long"}))
    with pytest.raises(emberbox.TimeoutException, match="too long"):
        await send(sdk, sandbox.commands, ["x"])


async def test_what_is_no_input(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", PATH, events({}))
    bad: Any = 1
    with pytest.raises(emberbox.InvalidArgumentException, match="not int"):
        await send(sdk, sandbox.commands, ["x", bad])


@pytest.mark.parametrize("data", ["text", b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
async def test_a_sync_stream_is_not_a_single_piece(server: StandIn, data: Any) -> None:
    sandbox: Any = await asyncio.to_thread(emberbox.Sandbox.create)
    for group in (sandbox.commands, sandbox.pty):
        with pytest.raises(emberbox.InvalidArgumentException, match="list"):
            await asyncio.to_thread(group.stream_input, 7, data)
    assert server.sent(PATH) == []


async def test_a_sync_stream_that_takes_too_long(server: StandIn) -> None:
    server.on("POST", PATH, events({}))

    def endless() -> Iterator[str]:
        while True:
            time.sleep(0.01)
            yield "x"

    sandbox = await asyncio.to_thread(emberbox.Sandbox.create)
    with pytest.raises(emberbox.TimeoutException):
        await asyncio.to_thread(sandbox.commands.stream_input, 7, endless(), timeout=0.1)


class TestHandle:
    """The asynchronous flavour's handle."""

    @pytest.fixture
    async def sandbox(self, server: StandIn) -> emberbox.AsyncSandbox:
        return await emberbox.AsyncSandbox.create()

    async def test_input_is_sent_before_the_end(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox
    ) -> None:
        server.on("POST", PATH, HANGING)
        handle = sandbox.commands.stream_input(7)
        assert isinstance(handle, emberbox.AsyncCommandInputHandle)
        await handle.send("x")
        await until(lambda: b'"stdin"' in server.heard)

    async def test_a_silent_stream_is_kept_alive(
        self,
        server: StandIn,
        sandbox: emberbox.AsyncSandbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("emberbox.sdk._async.input_streams.KEEPALIVE_SECONDS", 0.01)
        server.on("POST", PATH, HANGING)
        sandbox.commands.stream_input(7)
        await until(lambda: b'{"keepalive":{}}' in server.heard)

    async def test_a_process_that_does_not_read_holds_the_sender_back(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox
    ) -> None:
        server.on("POST", PATH, Answer(200, [], early=True, end="deaf"))
        sent = 0

        async def send_much() -> None:
            nonlocal sent
            async with sandbox.commands.stream_input(7) as handle:
                while sent < 1000:
                    await asyncio.wait_for(handle.send(b"x" * (256 << 10)), 0.5)
                    sent += 1

        with pytest.raises(TimeoutError):
            await send_much()
        assert 0 < sent < 1000

    async def test_a_block_that_fails_gives_up_the_stream(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox
    ) -> None:
        server.on("POST", PATH, HANGING)
        handle = sandbox.commands.stream_input(7)

        async def fail() -> None:
            async with handle:
                await handle.send("x")
                await until(lambda: b'"stdin"' in server.heard)
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        assert await asyncio.wait_for(server.given_up.get(), 5) == PATH
        with pytest.raises(emberbox.SandboxException, match="closed"):
            await handle.send("y")

    async def test_closing_twice_and_sending_after_it(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox
    ) -> None:
        server.on("POST", PATH, events({}))
        handle = sandbox.commands.stream_input(7)
        await handle.send("x")
        await handle.close()
        await handle.close()
        with pytest.raises(emberbox.SandboxException, match="stream_input"):
            await handle.send("y")

    async def test_a_stream_that_takes_too_long(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox
    ) -> None:
        server.on("POST", PATH, HANGING)
        handle = sandbox.commands.stream_input(7, timeout=0.1)
        assert await asyncio.wait_for(server.given_up.get(), 5) == PATH
        with pytest.raises(emberbox.TimeoutException, match="'timeout'"):
            await handle.send("x")
        with pytest.raises(emberbox.TimeoutException):
            await handle.close()

    @pytest.mark.parametrize("end", ["hang", "deaf"])
    async def test_a_block_whose_closing_is_cancelled_gives_up_the_stream(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox, end: str
    ) -> None:
        server.on("POST", PATH, Answer(200, [], early=True, end=end))
        handles: list[emberbox.AsyncCommandInputHandle] = []

        async def leave() -> None:
            async with sandbox.commands.stream_input(7, timeout=0) as handle:
                handles.append(handle)

        leaving = asyncio.create_task(leave())
        await until(lambda: server.sent(PATH) != [])
        leaving.cancel()
        await asyncio.wait([leaving], timeout=5)
        assert leaving.cancelled()
        with pytest.raises(emberbox.SandboxException, match="given up"):
            await asyncio.wait_for(handles[0].close(), 5)

    async def test_a_block_that_fails_at_once_gives_up_the_stream(
        self, sandbox: emberbox.AsyncSandbox
    ) -> None:
        handle = sandbox.commands.stream_input(7)
        with pytest.raises(KeyError):
            async with handle:
                raise KeyError
        with pytest.raises(emberbox.SandboxException, match="given up"):
            await handle.close()

    async def test_closing_can_be_tried_again(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox
    ) -> None:
        server.on("POST", PATH, events({}))
        handle = sandbox.commands.stream_input(7, timeout=0)
        pieces = [asyncio.create_task(handle.send("x")) for _ in range(40)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(handle.close())
        await asyncio.sleep(0)  # it waits behind the pieces, which are more than the queue holds
        closing.cancel()
        await asyncio.wait([closing])
        await asyncio.wait_for(asyncio.gather(*pieces), 5)
        await asyncio.wait_for(handle.close(), 5)
        assert len(server.requests[-1].messages) == 41

    async def test_pieces_of_two_senders_are_not_mixed(
        self, server: StandIn, sandbox: emberbox.AsyncSandbox
    ) -> None:
        server.on("POST", PATH, events({}))
        size = 20 * (256 << 10)
        async with sandbox.commands.stream_input(7) as handle:
            await asyncio.gather(handle.send(b"a" * size), handle.send(b"b" * size))
        _, *pieces = server.requests[-1].messages
        sent = b"".join(base64.b64decode(piece["data"]["input"]["stdin"]) for piece in pieces)
        assert sent == b"a" * size + b"b" * size
