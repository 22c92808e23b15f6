"""The forwarding engine: what the connections of one process share, and its listening socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from emberbox.proxying.client import ClientConnection
from emberbox.proxying.connection import Outbox
from emberbox.proxying.counts import Count
from emberbox.proxying.journal import Journal, Refusal
from emberbox.proxying.registry import Registry

if TYPE_CHECKING:
    import socket

    from emberbox.proxying.dialing import Dialer
    from emberbox.proxying.limits import Limits
    from emberbox.proxying.pool import Pool
    from emberbox.proxying.resolving import Resolver

_log = structlog.get_logger()
_SWEEP_EVERY = 1.0


class Engine:
    """Forwards HTTP/1.1 from the sockets it is given to where the resolver says."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        limits: Limits,
        dialer: Dialer,
        pool: Pool,
        journal: Journal | None = None,
    ) -> None:
        self.resolver = resolver
        self.journal = journal or Journal()
        self.counts = self.journal.counts
        self.limits = limits
        self.dialer = dialer
        self.pool = pool
        self.registry = Registry()
        self.outbox = Outbox()
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Accept from a listening socket until `drain`."""
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(lambda: ClientConnection(self), sock=listener)
        )
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._sweep())

    def admit(self, connection: ClientConnection) -> int:
        """A client has connected; return the connection's number."""
        self.connections.add(connection)
        self.counts[Count.ACCEPTED] += 1
        return self.counts[Count.ACCEPTED]

    def note_refusal(self, client: ClientConnection, status: int) -> None:
        """A request could not be read."""
        self.counts[Count.BAD] += 1
        self.journal.note(Refusal(client, client.requests, status))

    def forget(self, connection: ClientConnection) -> None:
        """A client's connection is closed."""
        self.connections.discard(connection)
        self.counts[Count.CLOSED] += 1
        if not self.connections:
            self._empty.set()

    async def drain(self, limit: float) -> int:
        """Stop accepting, let running exchanges finish for up to `limit` seconds, reset the rest.

        Returns how many were reset.
        """
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.finish_soon()
        if self.connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), limit)
        cut = list(self.connections)
        for connection in cut:
            connection.cut()
        if cut:
            _log.warning("connections cut at the end of draining", count=len(cut), limit=limit)
        await self._close()
        return len(cut)

    async def _close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.pool.close()
        await self._empty.wait()
        self.journal.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            self.pool.sweep()
            self.registry.sweep()
            self.journal.save()
            for connection in list(self.connections):
                connection.notice_end()
