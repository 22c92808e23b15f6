"""Asking a guest over a socket: whatever is there in envd's place costs no more than a sample."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator import envd_client
from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.telemetry.guest import SlotGuest

from .standin import answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLOT = NodeNetwork.of_node("unit-test").slot(1)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"


@asynccontextmanager
async def guest_that_says(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[bytes]]:
    """A guest behind SLOT; what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def connect(_slot: object, _port: int) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
        return made

    monkeypatch.setattr(envd_client, "connect", connect)
    async with server:
        yield asked


async def test_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guest_that_says(OK + answer(), monkeypatch) as asked:
        report = await SlotGuest(SLOT).report("ab12", 7)
    assert report.metrics.cpu_count == 2
    (request,) = asked
    assert request.startswith(b"GET /telemetry?stream=ab12&after=7 HTTP/1.1\r\n")
    assert b"access-token" not in request.lower()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 many OK\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"x" * 1_000_000,
        OK + b"x" * 1_000_000,
        OK + json.dumps({"metrics": None}).encode(),
    ],
    ids=range(10),
)
async def test_no_report(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guest_that_says(data, monkeypatch):
        with pytest.raises(GuestUnreachable):
            await SlotGuest(SLOT).report("", 0)
