"""Requests through both proxies while their workers are killed: only what a worker had in its hands
may fail, and only then."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.data_proxy.feed import RouteFeed
from emberbox.orchestrator.data_proxy.messages import Route
from emberbox.orchestrator.data_proxy.supervisor import DataProxyOptions, DataProxySupervisor
from emberbox.orchestrator.processes import identify, is_alive
from tests.conformance.proxies import PATIENCE, running, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import FreePorts

WORKERS = 2
CLIENTS = 16
KILL_EVERY = 1.0
LEAST_KILLS = 2
GRACE = 0.1
"""Seconds after a worker's end from which on no new connection may fail."""
_REQUEST = (
    b"POST / HTTP/1.1\r\nHost: 8000-i1.example.com\r\nContent-Length: 2\r\nConnection: %b\r\n\r\nhi"
)


@dataclass
class Kill:
    """A worker was killed, and had closed its sockets: on a starved machine that takes a while."""

    begun: float
    ended: float = math.inf


@dataclass
class Run:
    """What happened when, by the clock of the event loop."""

    kills: list[Kill] = field(default_factory=list)
    failures: list[tuple[float, float, str]] = field(default_factory=list)
    """From connecting to failing."""
    done: int = 0

    def unexcused(self) -> list[tuple[float, float, str]]:
        """Failures of requests that no worker had when it was killed."""
        return [
            (begun, ended, why)
            for begun, ended, why in self.failures
            if not any(begun - GRACE <= kill.ended and kill.begun <= ended for kill in self.kills)
        ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.exhaustive)])
async def test_only_what_was_in_flight_fails(
    count: int, free_ports: FreePorts, tmp_path: Path, guest: str
) -> None:
    port, health_port, data_port, metrics_port = free_ports(proxy=1, health=1, data=1, metrics=1)
    server = await asyncio.start_server(_serve, guest, 8000)
    feed = RouteFeed()
    await feed.put(Route("i1", "e1", guest))
    await feed.start(tmp_path / "routes.sock")
    data_proxy = DataProxySupervisor(
        DataProxyOptions(
            directory=tmp_path / "data-proxy",
            feed_socket=tmp_path / "routes.sock",
            secret_file=tmp_path / "internal_secret",
            api_address="127.0.0.1:9",
            port=data_port,
            metrics_port=metrics_port,
            workers=WORKERS,
            drain_timeout=1.0,
        ),
        feed,
    )
    flags: dict[str, object] = {
        "--home": tmp_path,
        "--port": port,
        "--health-port": health_port,
        "--data-proxy": f"127.0.0.1:{data_port}",
        "--workers": WORKERS,
    }
    run = Run()
    await data_proxy.start()
    try:
        with ExitStack() as started:
            edge = started.enter_context(running("emberbox.cli", "client-proxy", flags=flags))
            await asyncio.to_thread(wait_until_healthy, health_port, edge)
            killer = asyncio.create_task(_kill(run, port, edge.pid, data_port, data_proxy))
            await asyncio.gather(*(_ask(run, port, count // CLIENTS) for _ in range(CLIENTS)))
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)
    finally:
        await data_proxy.stop()
        await feed.close()
        server.close()
    print(  # noqa: T201 - shown with -s
        f"{run.done} answered, {len(run.failures)} failed, {len(run.kills)} workers killed"
    )
    assert run.done + len(run.failures) >= count // CLIENTS * CLIENTS
    assert run.unexcused() == []
    assert len(run.failures) <= 2 * CLIENTS * len(run.kills)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\nhi")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # a proxy's worker was killed
    finally:
        writer.transport.abort() if writer.is_closing() else writer.close()


async def _kill(
    run: Run, port: int, edge: int, data_port: int, data_proxy: DataProxySupervisor
) -> None:
    """One worker a second, of one proxy and then of the other, each time another: once those that
    were killed before are back."""
    loop = asyncio.get_running_loop()
    for turn in itertools.count():
        await asyncio.sleep(KILL_EVERY)
        while not _listeners(port) == _listeners(data_port) == WORKERS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        pids = sorted(data_proxy.pids if turn % 2 else _children(edge))
        worker = identify(pids[turn // 2 % WORKERS])
        kill = Kill(loop.time())
        run.kills.append(kill)
        os.kill(worker.pid, signal.SIGKILL)
        while is_alive(worker):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        kill.ended = loop.time()


def _listeners(port: int) -> int:
    """How many sockets listen on the port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    return sum(w[1].endswith(f":{port:04X}") and w[3] == "0A" for w in words)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def _ask(run: Run, port: int, count: int) -> None:
    """Half of the requests on connections of their own, half on one that is kept.

    So many, and more until workers of both proxies have been killed.
    """
    loop = asyncio.get_running_loop()
    kept = _connections(port)
    for turn in itertools.count():
        if turn >= count and len(run.kills) >= LEAST_KILLS:
            break
        begun = loop.time()
        try:
            async with asyncio.timeout(PATIENCE):
                await (_ask_kept(kept) if turn % 2 else _ask_once(port))
            run.done += 1
        except (OSError, EOFError, AssertionError, StopAsyncIteration) as error:
            run.failures.append((begun, loop.time(), repr(error)))
            kept = _connections(port)
    await kept.aclose()  # type: ignore[attr-defined]


async def _ask_once(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await _exchange(reader, writer, b"close")
    finally:
        writer.transport.abort()


async def _ask_kept(kept: AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    await _exchange(*await anext(kept), b"keep-alive")


async def _connections(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The same one for as long as it lives: its end while nobody uses it is no failure."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while not reader.at_eof() and reader.exception() is None:
                yield reader, writer
        finally:
            writer.transport.abort()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: bytes
) -> None:
    writer.write(_REQUEST % connection)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert await reader.readexactly(2) == b"ok"
