"""Takes queries from slots and passes them to the host's resolvers as they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import structlog

from emberbox.orchestrator.network.dns import upstream
from emberbox.orchestrator.network.dns.limits import Limits, Shares
from emberbox.orchestrator.network.dns.messages import is_query, server_failure

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from emberbox.orchestrator.network.dns.resolvers import Resolvers

    Ask = Callable[[str, bytes], Awaitable[bytes]]

_log = structlog.stdlib.get_logger(__name__)


class Forwarder:
    """Serves one UDP and one TCP socket. Nothing is cached: a policy would have to see it."""

    def __init__(self, resolvers: Resolvers, limits: Limits) -> None:
        self._resolvers = resolvers
        self._limits = limits
        self._queries = Shares(limits.queries, limits.queries_per_client)
        self._connections = Shares(limits.connections, limits.connections_per_client)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Listener(self), sock=udp)
        server = await asyncio.start_server(self._serve_connection, sock=tcp)
        try:
            await server.serve_forever()
        finally:
            server.close()
            transport.close()
            for task in self._tasks:
                task.cancel()

    def accept_datagram(
        self, query: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        """Answer one datagram later; what is malformed or too large gets no answer."""
        if is_query(query) and len(query) <= self._limits.query_bytes:
            task = asyncio.create_task(self._answer_datagram(query, client, transport))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(
        self, query: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        with self._queries.take(client[0]) as granted:
            if granted:
                transport.sendto(await self._resolve(query, upstream.ask_by_udp), client)

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        client: str = writer.get_extra_info("peername")[0]
        with self._connections.take(client) as granted:
            try:
                while granted and await self._answer_next(client, reader, writer):
                    pass
            except (OSError, EOFError, TimeoutError):
                pass  # the guest went away or said nothing for too long
            finally:
                writer.close()

    async def _answer_next(
        self, client: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        async with asyncio.timeout(self._limits.idle_s):
            query = await upstream.read_message(reader)
        if not is_query(query) or len(query) > self._limits.query_bytes:
            return False
        with self._queries.take(client) as granted:
            if not granted:
                return False
            answer = await self._resolve(query, upstream.ask_by_tcp)
        async with asyncio.timeout(self._limits.idle_s):
            await upstream.write_message(writer, answer)
        return True

    async def _resolve(self, query: bytes, ask: Ask) -> bytes:
        for resolver in self._resolvers.current():
            try:
                async with asyncio.timeout(self._limits.attempt_s):
                    return await ask(resolver, query)
            except OSError as error:  # TimeoutError among them
                _log.debug("resolver failed", resolver=resolver, error=str(error))
        return server_failure(query)


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own class is not a DatagramTransport before Python 3.12, only like one.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._forwarder.accept_datagram(data, addr, self._transport)
