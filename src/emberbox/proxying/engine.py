"""The forwarding engine: what the connections of one process share, and its listening socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from emberbox.proxying import replies
from emberbox.proxying.admission import Admission
from emberbox.proxying.client import ClientConnection
from emberbox.proxying.connection import Outbox
from emberbox.proxying.counts import Count
from emberbox.proxying.journal import Journal, Refusal
from emberbox.proxying.registry import Registry

if TYPE_CHECKING:
    import socket
    import ssl

    from emberbox.proxying.dialing import Dialer
    from emberbox.proxying.limits import Limits
    from emberbox.proxying.pool import Pool
    from emberbox.proxying.replies import Reply
    from emberbox.proxying.resolving import Resolver, Target

_log = structlog.get_logger()
_SWEEP_EVERY = 1.0
_LATE_HANDSHAKE = 1.0
"""Seconds that draining waits for the handshakes of those who connected last."""


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
        self.admission = Admission(limits, self.counts)
        self.registry = Registry()
        self.outbox = Outbox()
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._servers: list[tuple[asyncio.Server, socket.socket, ssl.SSLContext | None]] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def serve(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept from a listening socket until `drain`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: ClientConnection(self), sock=listener, **self._tls_options(tls)
        )
        self._servers.append((server, listener, tls))
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._sweep())

    def _tls_options(self, tls: ssl.SSLContext | None) -> dict[str, Any]:
        if tls is None:
            return {}
        handshake, shutdown = self.limits.header_timeout, self.limits.linger
        return {"ssl": tls, "ssl_handshake_timeout": handshake, "ssl_shutdown_timeout": shutdown}

    def note_refusal(self, client: ClientConnection, status: int) -> None:
        """A request could not be read."""
        self.counts[Count.BAD] += 1
        self.journal.note(Refusal(client, client.requests, status))

    def one_too_many(self, target: Target) -> Reply:
        """The answer when a sandbox has as many requests as it may have."""
        self.counts[Count.SANDBOX_LIMIT] += 1
        limit = self.limits.per_sandbox
        return replies.too_many_of_sandbox(target.sandbox_id, limit, of_envd=target.of_envd)

    def forget(self, connection: ClientConnection) -> None:
        """A client's connection is closed."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def drain(self, limit: float) -> int:
        """Stop accepting, let running exchanges finish for up to `limit` seconds, reset the rest.

        Returns how many were reset.
        """
        self.draining = True
        for server, listener, tls in self._servers:
            await self._accept_rest(listener, tls)
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

    async def _accept_rest(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Who has connected already is served: closing the socket would reset them."""
        loop = asyncio.get_running_loop()
        late = []
        with contextlib.suppress(OSError):  # raised when there is nobody left
            while True:
                client, _ = listener.accept()
                client.setblocking(False)
                connecting = loop.connect_accepted_socket(
                    lambda: ClientConnection(self), client, **self._tls_options(tls)
                )
                late.append(loop.create_task(connecting))
        if late:
            await asyncio.wait(late, timeout=_LATE_HANDSHAKE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

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
