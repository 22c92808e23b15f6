"""The client proxy as an operator runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from emberbox.client_proxy.edge import limits_of
from emberbox.client_proxy.settings import Settings
from tests.unit.proxying.peers import Backend, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = (
    "from emberbox.client_proxy.main import run\n"
    "from emberbox.client_proxy.settings import Settings\n"
    "run(Settings())\n"
)
REQUEST = b"GET / HTTP/1.1\r\nHost: 8000-i1.example.com\r\n\r\n"


class Proxy:
    """A running client proxy."""

    def __init__(self, home: Path, ports: list[int], upstream: int, drain: float) -> None:
        self.port, self.health_port = ports
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={
                **os.environ,
                "EMBERBOX_HOME": str(home),
                "EMBERBOX_PROXY_PORT": str(self.port),
                "EMBERBOX_PROXY_HEALTH_PORT": str(self.health_port),
                "EMBERBOX_DATA_PROXY_ADDRESS": f"127.0.0.1:{upstream}",
                "EMBERBOX_PROXY_DRAIN_TIMEOUT": str(drain),
            },
        )

    def health(self) -> int | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/health") as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def wait_healthy(self) -> None:
        end = time.monotonic() + 20
        while self.health() != 200:
            assert self.process.poll() is None, "the proxy ended"
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path, unused_ports: list[int]) -> Iterator[Callable[[int, float], Proxy]]:
    with contextlib.ExitStack() as stack:

        def start(upstream: int, drain: float) -> Proxy:
            proxy = Proxy(tmp_path, unused_ports, upstream, drain)
            stack.callback(proxy.process.wait)
            stack.callback(proxy.process.kill)
            proxy.wait_healthy()
            return proxy

        yield start


class Streaming:
    """A backend that sends the start of a stream, and its end when told to."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.secret: bytes | None = None

    async def __call__(self, connection: Connection) -> None:
        head = await connection.read_head()
        self.secret = head.get("X-Emberbox-Internal-Secret")
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await self.end.wait()
        await connection.send(b"0\r\n\r\n")


async def test_sigterm_lets_a_stream_finish(
    tmp_path: Path, start: Callable[[int, float], Proxy]
) -> None:
    streaming = Streaming()
    backend = Backend(streaming)
    await backend.start()
    proxy = await asyncio.to_thread(start, backend.port, 30)
    assert await asyncio.to_thread(proxy.health) == 200
    client = Connection(*await asyncio.open_connection("127.0.0.1", proxy.port))
    await client.send(REQUEST)
    await client.read_head()
    assert await client.read_chunk() == b"a"
    secret = (tmp_path / "internal_secret").read_bytes()
    assert streaming.secret == secret
    proxy.process.send_signal(signal.SIGTERM)
    while await asyncio.to_thread(proxy.health) != 503:
        assert proxy.process.poll() is None
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    streaming.end.set()
    assert await client.read_chunk() == b""
    assert await asyncio.to_thread(proxy.process.wait, 20) == 0
    client.close()
    await backend.stop()


async def test_sigterm_cuts_a_stream_that_does_not_finish(
    start: Callable[[int, float], Proxy],
) -> None:
    backend = Backend(Streaming())
    await backend.start()
    proxy = await asyncio.to_thread(start, backend.port, 0.05)
    client = Connection(*await asyncio.open_connection("127.0.0.1", proxy.port))
    await client.send(REQUEST)
    await client.read_head()
    proxy.process.send_signal(signal.SIGTERM)
    assert await client.ended() == "reset"
    assert await asyncio.to_thread(proxy.process.wait, 20) == 0
    client.close()
    await backend.stop()


def test_settings_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERBOX_PROXY_MAX_HEAD_BYTES", "1000")
    monkeypatch.setenv("EMBERBOX_PROXY_HEADER_TIMEOUT", "5")
    limits = limits_of(Settings())
    assert (limits.request_head, limits.header_timeout, limits.idle_timeout) == (1000, 5.0, 620.0)


@pytest.mark.parametrize("address", ["", "localhost", ":5007", "h:0", "h:port", "h:70000"])
def test_address_of_the_data_proxy_is_checked(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("EMBERBOX_DATA_PROXY_ADDRESS", address)
    with pytest.raises(ValidationError, match="is not host:port"):
        Settings()
