"""What the engine's connections to clients and to upstreams have in common: writing and ending."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from emberbox.proxying.bodies import Piece

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SMALL = 16 * 1024
"""Bytes up to which copying costs less than an I/O vector, and waiting for others is worth it."""
_MANY = 16
"""Pieces from which on joining costs less than an I/O vector."""


class Outbox(list[tuple[asyncio.Transport, "Piece"]]):
    """Small writes of one round of the event loop, made together at its end.

    Each write that reaches a sleeping process wakes it, which costs more than the write itself.
    When they come one after another most find their reader awake. Nothing waits longer than it
    takes to look at what else has come.
    """

    def put(self, transport: asyncio.Transport, data: Piece) -> None:
        """Write at the end of this round."""
        if not self:
            asyncio.get_running_loop().call_soon(self.flush)
        self.append((transport, data))

    def flush(self) -> None:
        """Write now, before anything that has to come after."""
        writes = self[:]
        self.clear()
        for transport, data in writes:
            if not transport.is_closing():  # its peer may have gone in this very round
                transport.write(data)


class Connection(asyncio.Protocol):
    """A transport and the calls on it that are safe in every state."""

    __slots__ = ("_outbox", "_said_eof", "_transport", "reading")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._transport: asyncio.Transport | None = None
        self._said_eof = False
        self.reading = True

    def attach(self, transport: asyncio.BaseTransport, high_water: int) -> asyncio.Transport:
        """Begin; from `high_water` unsent bytes on `pause_writing` is called."""
        self._transport = opened = cast("asyncio.Transport", transport)
        opened.set_write_buffer_limits(high=high_water)
        return opened

    def detach(self) -> None:
        """The transport is gone."""
        self._transport = None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to read."""
        self._outbox.flush()
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, data: Piece) -> None:
        """Send; what cannot go is queued, and `pause_writing` follows when that is much."""
        if self._transport is None:
            return
        if len(data) <= _SMALL:
            self._outbox.put(self._transport, data)
        else:
            self._write_at_once([data])

    def write_pieces(self, pieces: list[Piece]) -> None:
        """Send several pieces of data by one system call, small ones as one buffer."""
        if self._transport is None:
            return
        if sum(map(len, pieces)) <= _SMALL:
            self._outbox.put(self._transport, b"".join(pieces))
        else:
            self._write_at_once(pieces)

    def _write_at_once(self, pieces: list[Piece]) -> None:
        self._outbox.flush()
        if self._transport is None or self._transport.is_closing():
            return
        if len(pieces) > _MANY:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)

    def write_eof(self) -> None:
        """Say that no more comes; the other direction stays open."""
        self._outbox.flush()
        transport = self._transport
        if transport is None or transport.is_closing() or self._said_eof:
            return
        self._said_eof = True
        transport.write_eof()

    def read_on(self, wanted: bool) -> None:
        """Stop or resume reading."""
        if wanted is self.reading or self._transport is None:
            return
        self.reading = wanted
        (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def close_transport(self) -> None:
        """Close after what is queued is sent."""
        self._outbox.flush()
        if self._transport is not None:
            self._transport.close()

    def abort_transport(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def reset_transport(self) -> None:
        """Close with RST, dropping what is unsent: the peer must not take this for a clean end."""
        transport = self._transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and not transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
