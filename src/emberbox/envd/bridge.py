"""POST /bridge: makes a port reachable that a program opened on localhost only.

The proxies reach the guest by its outer address. When they are refused they ask here; if a
program listens on loopback, envd listens on the outer address and passes bytes on. The listener
goes when the program's goes, so that a program restarted on all addresses finds the port free.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.envd.errors import InvalidArgumentError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.envd.asgi import Request

logger = logging.getLogger(__name__)

_CHECK_INTERVAL = 1.0
_LISTEN = "0A"
_RESET = struct.pack("ii", 1, 0)


class Bridges:
    """The open bridges, by port. `address` is the outer address of the guest."""

    def __init__(self, address: str, own_port: int) -> None:
        self._address = address
        self._own_port = own_port
        self._servers: dict[int, asyncio.Server] = {}
        self._watch: asyncio.Task[None] | None = None

    async def handle(self, request: Request) -> dict[str, bool]:
        """The answer to POST /bridge. Raises PermissionDenied- or InvalidArgumentError."""
        if not self._from_outside(request.peer):
            raise PermissionDeniedError("/bridge is not accepted from inside the sandbox")
        port = (await request.json()).get("port")
        if not isinstance(port, int) or not 0 < port < 65536 or port == self._own_port:
            raise InvalidArgumentError("field 'port' must be a port number other than envd's")
        return {"bridged": await self.open(port)}

    def _from_outside(self, peer: str) -> bool:
        try:
            return not ipaddress.ip_address(peer).is_loopback and peer != self._address
        except ValueError:
            return False

    async def open(self, port: int) -> bool:
        """Whether dialling the port on the outer address has a listener now."""
        if port in self._servers:
            return True
        hosts = listening_hosts(port)
        if hosts & {"0.0.0.0", "::", self._address}:
            return True
        if not hosts & {"127.0.0.1", "::1"}:
            return False
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: _Outer(self, port), self._address, port, backlog=1024
            )
        except OSError as error:
            logger.warning("cannot bridge port %d: %s", port, error)
            return False
        self._servers[port] = server
        if self._watch is None or self._watch.done():
            self._watch = loop.create_task(self._close_unused())
        return True

    def close(self, port: int) -> None:
        """Stops listening; open connections go on."""
        server = self._servers.pop(port, None)
        if server is not None:
            server.close()

    def close_all(self) -> None:
        """For the end of envd."""
        for port in list(self._servers):
            self.close(port)
        if self._watch is not None:
            self._watch.cancel()

    async def _close_unused(self) -> None:
        while self._servers:
            await asyncio.sleep(_CHECK_INTERVAL)
            for port in list(self._servers):
                if not listening_hosts(port) & {"127.0.0.1", "::1"}:
                    self.close(port)


class _Half(asyncio.Protocol):
    """One side of a bridged connection. Bytes, half closes and resets go to the other side."""

    def __init__(self, other: _Half | None = None) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.ended = False

    @property
    def _peer(self) -> asyncio.Transport | None:
        return self.other.transport if self.other is not None else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a TCP connection
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if (peer := self._peer) is not None:
            peer.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if (peer := self._peer) is not None and not peer.is_closing():
            peer.write_eof()
        # Kept open for the other direction; asyncio closes this side when we say False.
        return not (self.other is not None and self.other.ended)

    def connection_lost(self, exc: Exception | None) -> None:
        if (peer := self._peer) is not None and not peer.is_closing():
            if exc is None:
                peer.close()
            else:
                reset(peer)

    def pause_writing(self) -> None:
        if (peer := self._peer) is not None:
            peer.pause_reading()

    def resume_writing(self) -> None:
        if (peer := self._peer) is not None:
            peer.resume_reading()


class _Outer(_Half):
    """The side of the proxy; dials the program when a connection comes in."""

    def __init__(self, bridges: Bridges, port: int) -> None:
        super().__init__()
        self._bridges = bridges
        self._port = port
        self._early = b""
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None  # noqa: S101 - just set
        self._dialling = asyncio.get_running_loop().create_task(self._dial(self.transport))

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            super().data_received(data)
            return
        # What comes before the program has been dialled waits here. Pausing in connection_made
        # does not help: Python 3.11 starts to read after it all the same.
        self._early += data
        if self.transport is not None:
            self.transport.pause_reading()

    async def _dial(self, outer: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        for host in ("127.0.0.1", "::1"):
            try:
                _, inner = await loop.create_connection(lambda: _Half(self), host, self._port)
            except OSError:
                continue
            self._join(outer, inner)
            return
        self._bridges.close(self._port)
        reset(outer)

    def _join(self, outer: asyncio.Transport, inner: _Half) -> None:
        self.other = inner
        assert inner.transport is not None  # noqa: S101 - it is connected
        if outer.is_closing():
            inner.transport.close()
            return
        inner.transport.write(self._early)
        if self.ended:
            inner.transport.write_eof()
        outer.resume_reading()


def reset(transport: asyncio.Transport) -> None:
    """Ends the connection by RST: the other end must not take it for a regular end."""
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def listening_hosts(port: int) -> set[str]:
    """Addresses on which some program listens for `port`."""
    return {*_listeners("tcp", port), *_listeners("tcp6", port)}


def _listeners(table: str, port: int) -> Iterator[str]:
    try:
        with Path("/proc/net", table).open() as lines:
            next(lines)
            for line in lines:
                _, local, _, state = line.split(None, 4)[:4]
                if state != _LISTEN:
                    return  # the kernel lists listeners first
                host, _, hexport = local.partition(":")
                if int(hexport, 16) == port:
                    yield _address(host)
    except FileNotFoundError:  # a kernel without IPv6
        return


def _address(text: str) -> str:
    # Words in host byte order.
    words = struct.unpack(f">{len(text) // 8}I", bytes.fromhex(text))
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))
