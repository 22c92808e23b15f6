"""One connection to an upstream: writes requests, reads responses, one after another."""

from __future__ import annotations

import asyncio
import enum
import select
from typing import TYPE_CHECKING, cast

from emberbox.proxying import sockets
from emberbox.proxying.bodies import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from emberbox.proxying.errors import BadMessageError
from emberbox.proxying.heads import parse_response_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.proxying.bodies import Piece
    from emberbox.proxying.heads import ResponseHead
    from emberbox.proxying.limits import Limits
    from emberbox.proxying.sides import UpstreamUser

_HEAD_END = b"\r\n\r\n"


class UpstreamState(enum.Enum):
    """What the bytes that come next are."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    TUNNEL = enum.auto()
    CLOSED = enum.auto()


class UpstreamConnection(asyncio.Protocol):
    """Parses responses for its user; knows nothing of clients and pools."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_finished",
        "_limits",
        "_reader",
        "_to_head",
        "_transport",
        "_user",
        "answered",
        "idle_since",
        "may_switch",
        "on_idle_end",
        "reusable",
        "state",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._user: UpstreamUser | None = None
        self._reader: BodyReader = LengthReader(0)
        self._buffer = b""
        self._to_head = False
        self.may_switch = False
        """The present request asked for a tunnel."""
        self._ended = False
        self._finished = False
        self.state = UpstreamState.IDLE
        self.answered = False
        """A byte of the answer to the present request came."""
        self.reusable = False
        """The last response left the connection fit for another request."""
        self.idle_since = 0.0
        self.on_idle_end: Callable[[UpstreamConnection], None] | None = None
        """Told when the connection ends, or speaks out of turn, while nobody uses it."""

    # What its user does.

    def begin(self, user: UpstreamUser, *, to_head: bool, may_switch: bool) -> None:
        """Take the connection for one request, whose bytes the user writes next."""
        self._user = user
        self._to_head = to_head
        self.may_switch = may_switch
        self.state = UpstreamState.HEAD
        self.answered = False
        self.reusable = False

    def let_go(self) -> None:
        """Leave the connection idle after a complete response."""
        self._user = None
        self.state = UpstreamState.IDLE

    def write(self, data: bytes) -> None:
        """Send; what cannot go at once is queued and `on_upstream_full` says when it is much."""
        if self._transport is not None:
            self._transport.write(data)

    def write_pieces(self, pieces: list[Piece]) -> None:
        """Send several pieces of data."""
        if self._transport is not None:
            self._transport.writelines(pieces)

    def write_eof(self) -> None:
        """Say that no more comes; the other direction stays open."""
        if self._transport is None or self._transport.is_closing() or self._finished:
            return
        self._finished = True
        self._transport.write_eof()

    def pause(self, paused: bool) -> None:
        """Stop or resume reading, for a client that does not keep up."""
        if self._transport is None or self._transport.is_closing() or self._ended:
            return
        if paused == self._transport.is_reading():
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def close(self) -> None:
        """Close after what is queued is sent; the user hears no more."""
        self._user = None
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; the user hears no more."""
        self._user = None
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close at once with RST; the user hears no more."""
        self._user = None
        if self._transport is not None:
            sockets.reset(self._transport)

    def is_quiet(self) -> bool:
        """Whether an idle connection has neither ended nor spoken, as far as the kernel knows."""
        if self._transport is None or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    # What the event loop does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the level at which the client is held."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_high_water)

    def data_received(self, data: bytes) -> None:
        """Parse on from the present state."""
        self.answered = True
        try:
            self._parse(data)
        except BadMessageError as error:
            self._fail(error)

    def eof_received(self) -> bool:
        """Keep a tunnel open for the other direction; anything else ends."""
        self._ended = True
        if self.state is UpstreamState.TUNNEL and self._user is not None:
            self._user.on_upstream_eof()
            return True
        return False

    def pause_writing(self) -> None:
        """The queue is above its high-water mark."""
        if self._user is not None:
            self._user.on_upstream_full(True)

    def resume_writing(self) -> None:
        """The queue is short again."""
        if self._user is not None:
            self._user.on_upstream_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a body that lasts until the close; report any other end."""
        state, self.state = self.state, UpstreamState.CLOSED
        user, self._user = self._user, None
        self._transport = None
        self.reusable = False
        if state is UpstreamState.IDLE and self.on_idle_end is not None:
            self.on_idle_end(self)
        if user is None:
            return
        if state is UpstreamState.BODY and isinstance(self._reader, UntilCloseReader) and not exc:
            user.on_response_complete(b"")
        else:
            user.on_upstream_lost(exc)

    def _parse(self, data: bytes) -> None:
        while True:
            if self.state is UpstreamState.HEAD:
                rest = self._read_head(data)
                if rest is None:
                    return
                data = rest
                if self._is_bodiless():
                    self._complete(data)
                    return
                if not data:
                    return
            elif self.state is UpstreamState.BODY:
                self._read_body(data)
                return
            elif self.state is UpstreamState.TUNNEL:
                if self._user is not None:
                    self._user.on_response_data([data])
                return
            else:
                self._speaks_out_of_turn()
                return

    def _read_head(self, data: bytes) -> bytes | None:
        """Handle one head; return what follows it, or None when it is not whole yet."""
        data = self._buffer + data if self._buffer else data
        end = data.find(_HEAD_END)
        if (len(data) if end < 0 else end) > self._limits.response_head:
            raise BadMessageError("the response head is too long", 502)
        if end < 0:
            self._buffer = data
            return None
        self._buffer = b""
        end += len(_HEAD_END)
        head = parse_response_head(data[:end])
        rest = data[end:]
        self._enter(head)
        if self._user is not None:
            self._user.on_response_head(head, more=bool(rest) or self._is_bodiless())
        return rest

    def _is_bodiless(self) -> bool:
        return self.state is UpstreamState.BODY and self._reader.done

    def _enter(self, head: ResponseHead) -> None:
        """Choose the state after a head."""
        if head.status == 101:
            if not self.may_switch:
                raise BadMessageError("a switch of protocols that was not asked for", 502)
            self.state = UpstreamState.TUNNEL
        elif head.status >= 200:
            self._reader = self._body_of(head)
            self.reusable = not head.close and not isinstance(self._reader, UntilCloseReader)
            self.state = UpstreamState.BODY

    def _body_of(self, head: ResponseHead) -> BodyReader:
        if self._to_head or head.status in (204, 304):
            return LengthReader(0)
        if head.chunked:
            return ChunkedReader()
        if head.content_length is not None:
            return LengthReader(head.content_length)
        return UntilCloseReader()

    def _read_body(self, data: bytes) -> None:
        reader = self._reader
        pieces = reader.feed(data)
        if self._user is not None:
            self._user.on_response_data(pieces)
        if reader.done:
            self._complete(reader.rest)

    def _complete(self, rest: bytes) -> None:
        if rest:
            self.reusable = False
        self.state = UpstreamState.IDLE
        if self._user is not None:
            self._user.on_response_complete(self._reader.trailers)

    def _speaks_out_of_turn(self) -> None:
        self.reusable = False
        if self._user is None:
            self.abort()
            if self.on_idle_end is not None:
                self.on_idle_end(self)

    def _fail(self, error: BadMessageError) -> None:
        user = self._user
        self.reset()
        self.state = UpstreamState.CLOSED
        if user is not None:
            user.on_upstream_lost(error)
