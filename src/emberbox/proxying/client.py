"""One client connection: cuts requests out of it and runs them one after another."""

from __future__ import annotations

import asyncio
import enum
import math
from typing import TYPE_CHECKING, cast

from emberbox.proxying import sockets
from emberbox.proxying.errors import BadMessageError
from emberbox.proxying.exchange import Exchange
from emberbox.proxying.heads import parse_request_head
from emberbox.proxying.replies import Reply

if TYPE_CHECKING:
    from emberbox.proxying.bodies import Piece
    from emberbox.proxying.engine import Engine

_HEAD_END = b"\r\n\r\n"


class ClientState(enum.Enum):
    """IDLE: between requests. HEAD: part of a head came. BUSY: an exchange runs.

    LINGERING: our last word is said, what still comes is read away. CLOSED: over.
    """

    IDLE = enum.auto()
    HEAD = enum.auto()
    BUSY = enum.auto()
    LINGERING = enum.auto()
    CLOSED = enum.auto()


class ClientConnection(asyncio.Protocol):
    """Serialises pipelined requests: the next is looked at when the one before is answered."""

    __slots__ = (
        "_deadline",
        "_engine",
        "_exchange",
        "_full",
        "_held",
        "_loop",
        "_pumping",
        "_timer",
        "_transport",
        "ahead",
        "closing",
        "finished",
        "peer",
        "state",
    )

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self.ahead = b""
        """What was read and is not taken yet."""
        self._held = False
        self._full = False
        self._pumping = False
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.peer = ""
        self.closing = False
        """The present answer is the last one on this connection."""
        self.finished = False
        """The client sends no more; it may still wait for answers."""
        self.state = ClientState.IDLE

    # What the event loop does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect the first request within the header time-out."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._engine.limits.write_high_water)
        self.peer = sockets.peer_of(self._transport)
        self.closing = self._engine.draining
        self._engine.connections.add(self)
        self._expect_within(self._engine.limits.header_timeout)

    def data_received(self, data: bytes) -> None:
        """Add to what is not yet taken, and go on."""
        if self.state in (ClientState.LINGERING, ClientState.CLOSED):
            return
        self.ahead = self.ahead + data if self.ahead else data
        self.pump()

    def eof_received(self) -> bool:
        """Keep the connection for the answer if the client waits for one."""
        self.finished = True
        exchange = self._exchange
        if exchange is None:
            return False
        if exchange.request_done:
            exchange.client_finished()
        else:
            self._give_up_if_cut_short()
        return self._transport is not None and not self._transport.is_closing()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._full = True
        if self._exchange is not None:
            self._exchange.client_full(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._exchange is not None:
            self._exchange.client_full(False)
        self._full = False
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange, which ends its upstream."""
        self.state = ClientState.CLOSED
        self._transport = None
        self.ahead = b""
        self._engine.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost(exc)

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # What the exchange does.

    def write(self, data: bytes) -> None:
        """Send; `pause_writing` follows when much is queued."""
        if self._transport is not None:
            self._transport.write(data)

    def write_pieces(self, pieces: list[Piece]) -> None:
        """Send several pieces of data."""
        if self._transport is not None:
            self._transport.writelines(pieces)

    def write_eof(self) -> None:
        """Say that no more comes."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def hold(self, held: bool) -> None:
        """Stop or resume reading: what comes has nowhere to go for now."""
        self._held = held
        self._read_or_not()

    def await_upgrade(self) -> None:
        """Give up after a while unless the exchange has passed the end on by then."""
        self._expect_within(self._engine.limits.undecided_upgrade)

    def reset(self) -> None:
        """Close with RST."""
        self._exchange = None
        self.state = ClientState.CLOSED
        if self._transport is not None:
            sockets.reset(self._transport)

    def close(self) -> None:
        """Close after what is queued is sent."""
        self._exchange = None
        self.state = ClientState.CLOSED
        if self._transport is not None:
            # A client that never reads its answer must not keep the connection for ever.
            if self._transport.get_write_buffer_size():
                self._expect_within(self._engine.limits.idle_timeout)
            self._transport.close()

    def linger(self) -> None:
        """Say FIN and read away what comes for a while.

        Closing with unread data would send a RST that takes our answer with it.
        """
        if self.finished:
            self.close()
            return
        self._exchange = None
        self.state = ClientState.LINGERING
        self.ahead = b""
        self._held = False
        self._read_or_not()
        self.write_eof()
        self._expect_within(self._engine.limits.linger)

    def exchange_over(self, keep_alive: bool) -> None:
        """Go on with the next request, which may have come already."""
        self._exchange = None
        if not keep_alive or self.closing:
            if self.ahead:
                self.linger()
            else:
                self.close()
            return
        self._held = False
        if self.finished and not self.ahead:
            self.close()
            return
        self.state = ClientState.IDLE
        self._deadline = self._loop.time() + self._engine.limits.idle_timeout
        self.pump()

    # Cutting out requests.

    def pump(self) -> None:
        """Hand on what was read, as far as it has somewhere to go."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self.ahead and self._step():
                pass
        finally:
            self._pumping = False
        if self.finished:
            self._give_up_if_cut_short()
        self._read_or_not()

    def _give_up_if_cut_short(self) -> None:
        """End what can never be whole: the client finished in the middle of a message."""
        exchange = self._exchange
        if exchange is None:
            if self.state is ClientState.HEAD:
                self.close()
        elif exchange.takes_data and not self.ahead and not exchange.request_done:
            (self.close if exchange.answer_done else self.reset)()
            exchange.client_lost(None)

    def _step(self) -> bool:
        """Take one request head, or what the exchange takes. False: nothing can go on now."""
        exchange = self._exchange
        if exchange is None:
            return self._may_take_head() and self._take_head()
        if not exchange.takes_data:
            return False
        data, self.ahead = self.ahead, b""
        try:
            rest = exchange.feed(data)
        except BadMessageError as error:
            exchange.broken_request(error)
            return False
        if self.state is not ClientState.CLOSED:
            self.ahead = rest
        return True

    def _may_take_head(self) -> bool:
        """A client that does not read its answers gets no more of them to pile up."""
        return self.state in (ClientState.IDLE, ClientState.HEAD) and not self._full

    def _take_head(self) -> bool:
        # RFC 9112, 2.2: a client may send an empty line before its request.
        data = self.ahead.removeprefix(b"\r\n")
        end = data.find(_HEAD_END)
        if (len(data) if end < 0 else end) > self._engine.limits.request_head:
            self._refuse(BadMessageError("the request head is too long", 431))
            return False
        if end < 0:
            self._wait_for_head()
            return False
        end += len(_HEAD_END)
        self.ahead = data[end:]
        try:
            request = parse_request_head(data[:end])
        except BadMessageError as error:
            self._refuse(error)
            return False
        self.state = ClientState.BUSY
        self._deadline = math.inf
        self._exchange = exchange = Exchange(self._engine, self, request)
        exchange.start()
        return True

    def _wait_for_head(self) -> None:
        if self.state is ClientState.IDLE:
            self.state = ClientState.HEAD
            self._expect_within(self._engine.limits.header_timeout)

    def _refuse(self, error: BadMessageError) -> None:
        self.write(Reply(error.status, text=error.text).to_bytes(None, close=True))
        self.linger()

    def _read_or_not(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self.finished:
            return
        wanted = not self._held and len(self.ahead) <= self._engine.limits.read_ahead
        if wanted != transport.is_reading():
            (transport.resume_reading if wanted else transport.pause_reading)()

    # Time.

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        """Deadlines move with every request, the timer only when it fires: that is cheaper."""
        self._timer = None
        left = self._deadline - self._loop.time()
        if left <= 0:
            self._expire()
            return
        self._timer = self._loop.call_later(
            min(left, self._engine.limits.header_timeout), self._on_timer
        )

    def _expire(self) -> None:
        if self.state is ClientState.HEAD:
            self._refuse(BadMessageError("the request head took too long", 408))
        elif self._exchange is not None and not self._exchange.holds_client_end:
            self._deadline = math.inf
        elif self._transport is not None:
            self._transport.abort()

    # Ends that the event loop does not tell.

    def notice_end(self) -> None:
        """Look for the client's end while it is not read: the loop would not see it.

        An upstream that is not read needs no such look: what it sent before it ended is still to
        be forwarded. Nor does a client that finished before all it sent could be taken.
        """
        exchange, transport = self._exchange, self._transport
        if exchange is None or transport is None or transport.is_closing():
            return
        if transport.is_reading() and not self.finished:
            return
        if sockets.has_failed(transport):
            self._exchange = None
            transport.abort()
            exchange.client_lost(ConnectionResetError())
        elif self._holds_unseen_end(exchange, transport):
            self.await_upgrade()

    def _holds_unseen_end(self, exchange: Exchange, transport: asyncio.Transport) -> bool:
        waits = exchange.holds_client_end and self._deadline == math.inf
        return waits and sockets.has_finished(transport)

    # The end of the process.

    def cut(self) -> None:
        """Reset, whatever goes on; the exchange hears of it as of any lost client."""
        if self._transport is not None:
            sockets.reset(self._transport)

    def finish_soon(self) -> None:
        """Take no further request; close when the present one is answered."""
        self.closing = True
        if self.state is ClientState.IDLE and not self.ahead:
            self.close()
