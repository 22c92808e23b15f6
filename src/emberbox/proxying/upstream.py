"""One connection to an upstream: writes requests, reads responses, one after another."""

from __future__ import annotations

import enum
import select
from typing import TYPE_CHECKING

from emberbox.proxying.bodies import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from emberbox.proxying.connection import Connection
from emberbox.proxying.errors import BadMessageError
from emberbox.proxying.heads import parse_response_head

if TYPE_CHECKING:
    import asyncio

    from emberbox.proxying.connection import Outbox
    from emberbox.proxying.heads import ResponseHead
    from emberbox.proxying.limits import Limits
    from emberbox.proxying.sides import Answered, TunnelEnd, UpstreamUser


class UpstreamState(enum.Enum):
    """What the bytes that come next are."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    TUNNEL = enum.auto()
    CLOSED = enum.auto()


# Looking a member up in its class costs more than a global, and this is done for every read.
_IDLE, _HEAD, _BODY = UpstreamState.IDLE, UpstreamState.HEAD, UpstreamState.BODY
_TUNNEL, _CLOSED = UpstreamState.TUNNEL, UpstreamState.CLOSED


class UpstreamConnection(Connection):
    """Parses responses for its user; knows nothing of clients."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_limits",
        "_reader",
        "_to_head",
        "_tunnel",
        "answered",
        "idle_since",
        "may_switch",
        "reusable",
        "shelf",
        "state",
    )

    def __init__(self, limits: Limits, outbox: Outbox) -> None:
        super().__init__(outbox)
        self._limits = limits
        self.answered: Answered | None = None
        """Who gets the response."""
        self._tunnel: TunnelEnd | None = None
        self._reader: BodyReader = LengthReader(0)
        self._buffer = b""
        self._to_head = False
        self._ended = False
        self.may_switch = False
        """The present request asked for a tunnel."""
        self.state = _IDLE
        self.reusable = False
        """The last response left the connection fit for another request."""
        self.idle_since = 0.0
        self.shelf: list[UpstreamConnection] | None = None
        """Where it waits for its next user; it takes itself out when it ends meanwhile."""

    # What its user does.

    def begin(self, answered: Answered, *, to_head: bool, may_switch: bool) -> None:
        """Take the connection for one request, whose bytes the user writes next."""
        self.answered = answered
        self._to_head = to_head
        self.may_switch = may_switch
        self.state = _HEAD
        self.reusable = False

    def hand_over(self, tunnel: TunnelEnd) -> None:
        """After 101: from now on another has the connection, for bytes."""
        self.answered = None
        self._tunnel = tunnel

    def pause(self, paused: bool) -> None:
        """Stop or resume reading, for a client that does not keep up."""
        if not self._ended:
            self.read_on(not paused)

    def close(self) -> None:
        """Close after what is queued is sent; the user hears no more."""
        self.answered = self._tunnel = None
        self.close_transport()

    def abort(self) -> None:
        """Close at once; the user hears no more."""
        self.answered = self._tunnel = None
        self.abort_transport()

    def reset(self) -> None:
        """Close at once with RST; the user hears no more."""
        self.answered = self._tunnel = None
        self.reset_transport()

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
        self.attach(transport, self._limits.write_high_water)

    def data_received(self, data: bytes) -> None:
        """Parse on from the present state."""
        answered = self.answered
        if answered is None or self.state is _IDLE:
            self._pass_or_refuse(data)
            return
        try:
            if self.state is _HEAD:
                self._read_heads(data, answered)
            else:
                self._read_body(data, answered)
        except BadMessageError as error:
            self._fail(error)

    def _pass_or_refuse(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.on_upstream_data(data)
            return
        # It speaks out of turn.
        self.reusable = False
        if self.answered is None:
            self.abort()
            self._leave_shelf()

    def eof_received(self) -> bool:
        """Keep a tunnel open for the other direction; anything else ends."""
        self._ended = True
        transport = self._transport
        if self._tunnel is None or transport is None or not transport.can_write_eof():
            return False
        self._tunnel.on_upstream_eof()
        return True

    def pause_writing(self) -> None:
        """The queue is above its high-water mark."""
        if (user := self._user) is not None:
            user.on_upstream_full(True)

    def resume_writing(self) -> None:
        """The queue is short again."""
        if (user := self._user) is not None:
            user.on_upstream_full(False)

    @property
    def _user(self) -> UpstreamUser | None:
        return self.answered or self._tunnel

    def connection_lost(self, exc: Exception | None) -> None:
        """End a body that lasts until the close; report any other end."""
        state, self.state = self.state, _CLOSED
        answered, tunnel = self.answered, self._tunnel
        self.answered = self._tunnel = None
        self.detach()
        self.reusable = False
        self._leave_shelf()
        if tunnel is not None:
            tunnel.on_upstream_lost(exc)
        elif answered is None:
            return
        elif state is _BODY and isinstance(self._reader, UntilCloseReader) and not exc:
            answered.on_response_data([], b"")
        else:
            answered.on_upstream_lost(exc)

    def _read_heads(self, data: bytes, answered: Answered) -> None:
        """Hand over interim heads and the final one, and what follows it."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while self.answered is answered:
            end = data.find(b"\r\n\r\n")
            if (len(data) if end < 0 else end) > self._limits.response_head:
                raise BadMessageError("the response head is too long", 502)
            if end < 0:
                self._buffer = data
                return
            end += 4
            head = parse_response_head(data[:end])
            data = data[end:]
            if head.status >= 200:
                self._begin_body(head, data, answered)
                return
            if head.status == 101:
                self._switch(head, data, answered)
                return
            answered.on_interim_head(head)

    def _switch(self, head: ResponseHead, data: bytes, answered: Answered) -> None:
        if not self.may_switch:
            raise BadMessageError("a switch of protocols that was not asked for", 502)
        self.state = _TUNNEL
        answered.on_switch(head, data)

    def _begin_body(self, head: ResponseHead, data: bytes, answered: Answered) -> None:
        bodiless = self._to_head or head.status in (204, 304)
        length = 0 if bodiless else head.content_length
        if length == len(data):  # all of it is here, as is most often so
            self.reusable = not head.close
            self.state = _IDLE
            answered.on_response_head(head, [data] if data else [], b"")
            return
        self._reader = reader = _reader_of(head, length)
        self.reusable = not head.close and not isinstance(reader, UntilCloseReader)
        self.state = _BODY
        pieces = reader.feed(data) if data else []
        answered.on_response_head(head, pieces, self._trailers_of(reader))

    def _read_body(self, data: bytes, answered: Answered) -> None:
        reader = self._reader
        pieces = reader.feed(data)
        answered.on_response_data(pieces, self._trailers_of(reader))

    def _trailers_of(self, reader: BodyReader) -> bytes | None:
        """Those of a body that is whole now."""
        if not reader.done:
            return None
        if reader.rest:
            self.reusable = False
        self.state = _IDLE
        return reader.trailers

    def _leave_shelf(self) -> None:
        if self.shelf is not None:
            self.shelf.remove(self)
            self.shelf = None

    def _fail(self, error: BadMessageError) -> None:
        answered = self.answered
        self.reset()
        self.state = _CLOSED
        if answered is not None:
            answered.on_upstream_lost(error)


def _reader_of(head: ResponseHead, length: int | None) -> BodyReader:
    if length is not None:
        return LengthReader(length)
    return ChunkedReader() if head.chunked else UntilCloseReader()
