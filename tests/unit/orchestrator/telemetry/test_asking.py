"""Asking a guest over a socket: whatever is there in envd's place costs no more than a sample."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator import envd_connection
from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.telemetry.guest import SlotGuest

from .standin import answer, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLOT = NodeNetwork.of_node("unit-test").slot(1)
TAIL = "secret-of-the-guest"


def ok(body: bytes, *more: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *more]
    return b"\r\n".join([*lines, b"", body])


@dataclass
class StandIn:
    """A guest behind SLOT that says the same to every request."""

    data: bytes
    hangs_up: bool = True
    asked: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.data)
                if self.hangs_up:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1


@asynccontextmanager
async def asking(guest: StandIn, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlotGuest]:
    """Who asks that guest."""
    server = await asyncio.start_server(guest.serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def connect(_slot: object, _port: int) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
        return made

    monkeypatch.setattr(envd_connection, "connect", connect)
    async with server:
        asker = SlotGuest(SLOT)
        try:
            yield asker
        finally:
            asker.close()
            await until(lambda: guest.open == 0)


async def test_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = StandIn(ok(answer()))
    async with asking(guest, monkeypatch) as asker:
        report = await asker.report("ab12", 7)
    assert report.metrics.cpu_count == 2
    (request,) = guest.asked
    assert request.startswith(b"GET /telemetry?stream=ab12&after=7 HTTP/1.1\r\n")
    assert b"access-token" not in request.lower()


async def test_one_connection_serves_all_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = StandIn(ok(answer()), hangs_up=False)
    async with asking(guest, monkeypatch) as asker:
        for number in range(5):
            await asker.report("ab12", number)
    assert (guest.connections, len(guest.asked)) == (1, 5)


@pytest.mark.parametrize("more", [(), (b"Connection: close",)], ids=["silently", "as announced"])
async def test_a_connection_that_ended_is_made_again(
    more: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = StandIn(ok(answer(), *more))
    async with asking(guest, monkeypatch) as asker:
        for number in range(3):
            await asker.report("ab12", number)
    assert guest.connections == 3


async def test_a_late_answer_is_not_taken_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = StandIn(b"", hangs_up=False)
    async with asking(guest, monkeypatch) as asker:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asker.report("ab12", 0)
        guest.data = ok(answer())
        await asker.report("ab12", 0)
    assert guest.connections == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        f"HTTP/1.1 {TAIL} OK\r\n\r\n".encode(),
        b"HTTP/1.1 " + b"9" * 4000 + b" OK\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"x" * 1_000_000,
        ok(b"x" * 1_000_000),
        b"HTTP/1.1 200 OK\r\n\r\n" + answer(),
        f"HTTP/1.1 200 OK\r\ncontent-length: {TAIL}\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        ok(answer())[:-1],
        ok(json.dumps({"metrics": None}).encode()),
    ],
    ids=range(16),
)
async def test_no_report(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(StandIn(data), monkeypatch) as asker:
        with pytest.raises(GuestUnreachable) as caught:
            await asker.report("", 0)
    assert len(str(caught.value)) < 300, "it is logged"
    assert TAIL not in str(caught.value)
