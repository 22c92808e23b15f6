"""The orchestrator's side of the route feed: tells every worker where sandboxes are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.data_proxy.errors import BadFeedError
from emberbox.orchestrator.data_proxy.messages import (
    Ack,
    Delete,
    Put,
    Route,
    Snapshot,
    decode,
    encode,
)

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.data_proxy.messages import Message

_log = structlog.get_logger()
_ACK_WITHIN = 1.0
"""Seconds. A worker that is slower is disconnected; it returns and gets a snapshot."""


class RouteFeed:
    """Serves the feed's Unix socket inside the orchestrator's event loop.

    `put` the routes of the VMs that were adopted *before* `start`: workers that kept their table
    while the orchestrator was away take the first snapshot for the whole truth.
    """

    def __init__(self, *, ack_within: float = _ACK_WITHIN) -> None:
        self._ack_within = ack_within
        self._routes: dict[str, Route] = {}
        self._number = 0
        self._workers: set[_Worker] = set()
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()

    @property
    def connected(self) -> int:
        """How many workers have the present table."""
        return len(self.ready_pids)

    @property
    def ready_pids(self) -> set[int]:
        """The processes that have acknowledged their snapshot."""
        return {worker.pid for worker in self._workers if worker.acked}

    async def start(self, socket_path: Path) -> None:
        """Listen (0600). A socket left behind by an orchestrator that is gone is replaced."""
        listener = _bind(socket_path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def put(self, route: Route) -> None:
        """Make a route live: it is when this returns, in every worker that keeps up."""
        self._routes[route.sandbox_id] = route
        await self._publish(Put(self._next(), route))

    async def delete(self, sandbox_id: str, execution_id: str) -> None:
        """End the route of one execution, and its connections; another's stays."""
        route = self._routes.get(sandbox_id)
        if route is not None and route.execution_id == execution_id:
            del self._routes[sandbox_id]
        await self._publish(Delete(self._next(), sandbox_id, execution_id))

    async def wait_ready(self, pids: set[int]) -> None:
        """Return when all of these workers have the table."""
        while not pids <= self.ready_pids:
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Disconnect the workers, which keep their tables, and stop listening."""
        if self._server is not None:
            self._server.close()
        for worker in list(self._workers):
            worker.disconnect()
        if self._server is not None:
            await self._server.wait_closed()

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _publish(self, message: Put | Delete) -> None:
        workers = list(self._workers)
        for worker in workers:
            worker.send(message)
        waits = [self._wait_for_ack(worker, message.number) for worker in workers]
        await asyncio.gather(*waits)

    async def _wait_for_ack(self, worker: _Worker, number: int) -> None:
        try:
            async with asyncio.timeout(self._ack_within):
                await worker.wait_for(number)
        except TimeoutError:
            _log.error("data proxy worker does not keep up, disconnected", pid=worker.pid)
            worker.disconnect()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = _Worker(reader, writer)
        self._workers.add(worker)
        worker.send(Snapshot(self._number, tuple(self._routes.values())))
        try:
            await worker.read_acks(self._changed)
        except (BadFeedError, OSError, ValueError) as error:
            _log.warning("data proxy worker disconnected", pid=worker.pid, reason=str(error))
        finally:
            self._workers.discard(worker)
            worker.disconnect()
            self._changed.set()


class _Worker:
    """One connected worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._applied = -1
        self._waiting: dict[int, asyncio.Event] = {}
        self._gone = False
        self.pid = _peer_pid(writer)

    @property
    def acked(self) -> bool:
        """Whether it has applied its snapshot."""
        return self._applied >= 0 and not self._gone

    def send(self, message: Message) -> None:
        self._writer.write(encode(message))

    async def wait_for(self, number: int) -> None:
        """Return when `number` is applied, or the worker is gone and will get a snapshot."""
        if self._applied < number and not self._gone:
            await self._waiting.setdefault(number, asyncio.Event()).wait()

    async def read_acks(self, changed: asyncio.Event) -> None:
        """Take acks until the worker disconnects. Raises BadFeedError."""
        while line := await self._reader.readline():
            message = decode(line)
            if not isinstance(message, Ack):
                raise BadFeedError(line, "a worker sends acks only")
            self._applied = message.number
            self._release(message.number)
            changed.set()

    def disconnect(self) -> None:
        self._gone = True
        self._release(None)
        self._writer.transport.abort()

    def _release(self, upto: int | None) -> None:
        for number in [n for n in self._waiting if upto is None or n <= upto]:
            self._waiting.pop(number).set()


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    # Nobody can connect before listen(), so there is no moment with a wider mode.
    path.chmod(0o600)
    return listener


def _peer_pid(writer: asyncio.StreamWriter) -> int:
    sock = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", credentials)[0])
