"""Asking one of the host's resolvers, over UDP and over TCP."""

from __future__ import annotations

import asyncio
import struct

from emberbox.orchestrator.network.dns.messages import answers

DNS_PORT = 53


class _Question(asyncio.DatagramProtocol):
    """One query from a port of its own, which the kernel chooses at random."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if answers(self._query, data) and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.answer.cancel()


async def ask_by_udp(resolver: str, query: bytes) -> bytes:
    """The resolver's answer. Raises OSError; waits without an end of its own."""
    loop = asyncio.get_running_loop()
    transport, question = await loop.create_datagram_endpoint(
        lambda: _Question(query), remote_addr=(resolver, DNS_PORT)
    )
    try:
        transport.sendto(query)
        return await question.answer
    finally:
        transport.close()


async def ask_by_tcp(resolver: str, query: bytes) -> bytes:
    """As `ask_by_udp`, for answers that do not fit a datagram. EOFError is an OSError here."""
    reader, writer = await asyncio.open_connection(resolver, DNS_PORT)
    try:
        await write_message(writer, query)
        return await read_message(reader)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the resolver closed the connection") from error
    finally:
        writer.close()


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """One message with its length before it (RFC 1035, 4.2.2). Raises IncompleteReadError."""
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)


async def write_message(writer: asyncio.StreamWriter, message: bytes) -> None:
    """Write one message with its length before it."""
    writer.write(struct.pack("!H", len(message)) + message)
    await writer.drain()
