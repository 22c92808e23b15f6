"""One client connection: cuts requests out of it and runs them one after another."""

from __future__ import annotations

import asyncio
import enum
import math
from time import monotonic
from typing import TYPE_CHECKING

from emberbox.proxying import sockets
from emberbox.proxying.connection import Connection
from emberbox.proxying.counts import Count
from emberbox.proxying.errors import BadMessageError
from emberbox.proxying.exchange import Exchange
from emberbox.proxying.heads import parse_request_head
from emberbox.proxying.replies import Reply

if TYPE_CHECKING:
    from emberbox.proxying.engine import Engine
    from emberbox.proxying.sides import ClientUser


class ClientState(enum.Enum):
    """IDLE: between requests. HEAD: part of a head came. BUSY: an exchange runs.

    LINGERING: our last word is said, what still comes is read away. CLOSED: over.
    """

    IDLE = enum.auto()
    HEAD = enum.auto()
    BUSY = enum.auto()
    LINGERING = enum.auto()
    CLOSED = enum.auto()


_IDLE, _HEAD, _BUSY = ClientState.IDLE, ClientState.HEAD, ClientState.BUSY
_LINGERING, _CLOSED = ClientState.LINGERING, ClientState.CLOSED


_FIRST_REQUEST = 1.0
"""Seconds that draining waits for the first request of a new connection."""
_TOO_LONG = BadMessageError("the request head is too long", 431)


class ClientConnection(Connection):
    """Serialises pipelined requests: the next is looked at when the one before is answered."""

    __slots__ = (
        "_deadline",
        "_engine",
        "_full",
        "_held",
        "_loop",
        "_pumping",
        "_refusal",
        "_timer",
        "_user",
        "ahead",
        "closing",
        "finished",
        "number",
        "peer",
        "requests",
        "state",
    )

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.outbox)
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._user: ClientUser | None = None
        """The exchange or the tunnel that takes what comes."""
        self.ahead = b""
        """What was read and is not taken yet."""
        self._held = False
        self._full = False
        self._pumping = False
        self._refusal: Reply | None = None
        """The answer to its first request, when it is a connection too many."""
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.peer = ""
        self.number = 0
        """Of the connection, in this process."""
        self.requests = 0
        """How many heads came."""
        self.closing = False
        """The present answer is the last one on this connection."""
        self.finished = False
        """The client sends no more; it may still wait for answers."""
        self.state = _IDLE

    # What the event loop does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect the first request within the header time-out."""
        opened = self.attach(transport, self._engine.limits.write_high_water)
        self.peer = sockets.peer_of(opened)
        engine = self._engine
        self.closing = engine.draining
        self._refusal = engine.admission.enter(self.peer)
        self.number = engine.counts[Count.ACCEPTED]
        engine.connections.add(self)
        if self._refusal is None:
            self._expect_within(engine.limits.header_timeout)
        elif engine.admission.exhausted:
            opened.abort()
        else:
            self._expect_within(engine.limits.refused_wait)

    def data_received(self, data: bytes) -> None:
        """Begin an exchange, or add to what is not yet taken, and go on."""
        if self.state is _IDLE and not self.ahead and not self._full:
            end = data.find(b"\r\n\r\n") + 4
            if end == len(data):  # one request without a body, as most come
                self._begin(data)
                return
        elif self.state is _LINGERING or self.state is _CLOSED:
            return
        self.ahead = self.ahead + data if self.ahead else data
        self.pump()

    def eof_received(self) -> bool:
        """Keep the connection for the answer if the client waits for one.

        With TLS there is no such half of a connection: it ends.
        """
        # False closes the transport, behind which what this round has written would be lost.
        self._outbox.flush()
        if self._transport is None or not self._transport.can_write_eof():
            return False
        self.finished = True
        user = self._user
        if user is None:
            return False
        if user.request_done:
            user.client_finished()
        else:
            self._give_up_if_cut_short()
        return not self._transport.is_closing()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._full = True
        if self._user is not None:
            self._user.client_full(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._user is not None:
            self._user.client_full(False)
        self._full = False
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange, which ends its upstream."""
        self.state = _CLOSED
        self.detach()
        self.ahead = b""
        self._engine.admission.leave(self.peer)
        self._engine.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        user, self._user = self._user, None
        if user is not None:
            user.client_lost(exc)

    # What the exchange does.

    def hold(self, held: bool) -> None:
        """Stop or resume reading: what comes has nowhere to go for now."""
        self._held = held
        self._read_or_not()

    def hand_over(self, user: ClientUser) -> None:
        """The exchange has become a tunnel."""
        self._user = user

    def await_upgrade(self) -> None:
        """Give up after a while unless the exchange has passed the end on by then."""
        self._expect_within(self._engine.limits.undecided_upgrade)

    def reset(self) -> None:
        """Close with RST."""
        self._user = None
        self.state = _CLOSED
        self.reset_transport()

    def close(self) -> None:
        """Close after what is queued is sent."""
        self._user = None
        self.state = _CLOSED
        # A client that never reads its answer must not keep the connection for ever.
        if self.unsent:
            self._expect_within(self._engine.limits.idle_timeout)
        self.close_transport()

    def linger(self) -> None:
        """Say FIN and read away what comes for a while.

        Closing with unread data would send a RST that takes our answer with it.
        """
        if self.finished:
            self.close()
            return
        self._user = None
        self.state = _LINGERING
        self.ahead = b""
        self._held = False
        self._read_or_not()
        self.write_eof()
        self._expect_within(self._engine.limits.linger)

    def exchange_over(self, keep_alive: bool) -> None:
        """Go on with the next request, which may have come already."""
        self._user = None
        self._held = False
        if not keep_alive or self.closing:
            if self.ahead:
                self.linger()
            else:
                self.close()
        elif self.finished and not self.ahead:
            self.close()
        else:
            self.state = _IDLE
            self._deadline = monotonic() + self._engine.limits.idle_timeout
            if self.ahead or not self.reading:
                self.pump()

    # Cutting out requests.

    def pump(self) -> None:
        """Hand on what was read, as far as it has somewhere to go."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self.ahead:
                user = self._user
                if user is None:
                    if not self._take_head():
                        break
                elif not (user.takes_data and self._feed(user)):
                    break
        finally:
            self._pumping = False
        if self.finished:
            self._give_up_if_cut_short()
        if self.ahead or not self.reading:
            self._read_or_not()

    def _give_up_if_cut_short(self) -> None:
        """End what can never be whole: the client finished in the middle of a message."""
        user = self._user
        if user is None:
            if self.state is _HEAD:
                self.close()
        elif user.takes_data and not self.ahead and not user.request_done:
            (self.close if user.answer_done else self.reset)()
            user.client_lost(None)

    def _feed(self, user: ClientUser) -> bool:
        data, self.ahead = self.ahead, b""
        return user.feed(data)

    def _take_head(self) -> bool:
        """Begin the next exchange. False: nothing can go on now."""
        # A client that does not read its answers gets no more of them to pile up.
        if self._full or not (self.state is _IDLE or self.state is _HEAD):
            return False
        data = self.ahead
        end = data.find(b"\r\n\r\n") + 4
        if end > 3:
            self.ahead = data[end:]
            return self._begin(data[:end])
        if len(data) > self._engine.limits.request_head:
            self._refuse(_TOO_LONG)
        elif self.state is _IDLE:
            self.state = _HEAD
            self._expect_within(self._engine.limits.header_timeout)
        return False

    def _begin(self, head: bytes) -> bool:
        if len(head) > self._engine.limits.request_head + 4:
            self._refuse(_TOO_LONG)
            return False
        try:
            request = parse_request_head(head)
        except BadMessageError as error:
            self._refuse(error)
            return False
        self.state = _BUSY
        self._deadline = math.inf
        self.requests += 1
        self._user = exchange = Exchange(self._engine, self, request)
        if self._refusal is None:
            exchange.start()
        else:
            self.closing = True
            exchange.reply(self._refusal)
        return True

    def _refuse(self, error: BadMessageError) -> None:
        self.requests += 1
        self._engine.note_refusal(self, error.status)
        self.write(Reply(error.status, text=error.text).to_bytes(None, close=True))
        self.linger()

    def _read_or_not(self) -> None:
        if not self.finished:
            self.read_on(not self._held and len(self.ahead) <= self._engine.limits.read_ahead)

    # Time.

    def _expect_within(self, seconds: float) -> None:
        self._deadline = monotonic() + seconds
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        """Deadlines move with every request, the timer only when it fires: that is cheaper."""
        self._timer = None
        left = self._deadline - monotonic()
        if left <= 0:
            self._expire()
            return
        self._timer = self._loop.call_later(
            min(left, self._engine.limits.header_timeout), self._on_timer
        )

    def _expire(self) -> None:
        if self.state is _HEAD:
            self._refuse(BadMessageError("the request head took too long", 408))
        elif self._user is not None and not self._user.holds_client_end:
            self._deadline = math.inf
        else:
            self.abort_transport()

    # Ends that the event loop does not tell.

    def notice_end(self) -> None:
        """Look for the client's end while it is not read: the loop would not see it.

        An upstream that is not read needs no such look: what it sent before it ended is still to
        be forwarded. Nor does a client that finished before all it sent could be taken.
        """
        user, transport = self._user, self._transport
        if user is None or transport is None or transport.is_closing():
            return
        if self.reading and not self.finished:
            return
        if sockets.has_failed(transport):
            self._user = None
            transport.abort()
            user.client_lost(ConnectionResetError())
        elif self._holds_unseen_end(user, transport):
            self.await_upgrade()

    def _holds_unseen_end(self, user: ClientUser, transport: asyncio.Transport) -> bool:
        waits = user.holds_client_end and self._deadline == math.inf
        return waits and sockets.has_finished(transport)

    # The end of the process.

    def cut(self) -> None:
        """Reset, whatever goes on; the exchange hears of it as of any lost client."""
        self.reset_transport()

    def finish_soon(self) -> None:
        """Take no further request; close when the present one is answered.

        One that has just connected is about to send its first.
        """
        self.closing = True
        if self.state is _IDLE and not self.ahead:
            if self.requests:
                self.close()
            else:
                self._expect_within(_FIRST_REQUEST)
