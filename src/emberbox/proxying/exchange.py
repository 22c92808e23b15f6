"""One request and its answer: from the head to the last byte, or to a tunnel's end.

```
ROUTING ──reply──────────────► DRAINING ──request read──► over
   │ target     ▲                  ▲
   │            └─────sandbox ended│before it was given the request, or it may be repeated
DIALLING ──no connection───────────┤
   │ connected                     │ upstream fails before its head
FORWARDING ──upstream fails in its answer──► client reset
   │   │ answer complete, request complete ──────────────► over
   │   │ answer complete, upstream gone or closing ───────► client lingers
   │ 101
TUNNELLING ──both ends finished────► both closed
```
The upstream's end is never turned into a clean end towards the client, nor the client's into a
complete request towards the upstream. A client that finishes sending (FIN) after a whole request
is passed on as just that: the server behind decides whether it goes on, as it would if they were
connected directly.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING

import structlog

from emberbox.proxying import replies, serialising
from emberbox.proxying.bodies import (
    BodyReader,
    ChunkedReader,
    LengthReader,
    MessageWriter,
)
from emberbox.proxying.errors import BadMessageError, DialError
from emberbox.proxying.replies import Reply
from emberbox.proxying.resolving import Target

if TYPE_CHECKING:
    from emberbox.proxying.bodies import Piece
    from emberbox.proxying.engine import Engine
    from emberbox.proxying.heads import RequestHead, ResponseHead
    from emberbox.proxying.resolving import Decision
    from emberbox.proxying.sides import ClientSide
    from emberbox.proxying.upstream import UpstreamConnection

_log = structlog.get_logger()
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110, 9.2.2: a proxy may send these again when a kept connection died under them."""


class ExchangeState(enum.Enum):
    """See the diagram above."""

    ROUTING = enum.auto()
    DIALLING = enum.auto()
    FORWARDING = enum.auto()
    TUNNELLING = enum.auto()
    DRAINING = enum.auto()
    OVER = enum.auto()


class Exchange:
    """The state machine between one client connection and one upstream connection."""

    __slots__ = (
        "_client",
        "_engine",
        "_keep_alive",
        "_reader",
        "_repeated",
        "_task",
        "_to_client",
        "_to_upstream",
        "_upstream",
        "_upstream_finished",
        "_upstream_kept",
        "answer_begun",
        "answer_done",
        "execution_id",
        "request",
        "request_done",
        "state",
        "target",
    )

    def __init__(self, engine: Engine, client: ClientSide, request: RequestHead) -> None:
        self._engine = engine
        self._client = client
        self._reader: BodyReader = (
            ChunkedReader() if request.chunked else LengthReader(request.content_length)
        )
        self._task: asyncio.Future[Decision] | asyncio.Future[None] | None = None
        self._upstream: UpstreamConnection | None = None
        self._upstream_kept = False
        self._upstream_finished = False
        self._keep_alive = request.keep_alive
        self._repeated = False
        self._to_upstream: MessageWriter | None = None
        self._to_client: MessageWriter | None = None
        self.request = request
        self.request_done = self._reader.done
        self.answer_begun = False
        self.answer_done = False
        self.target: Target | None = None
        self.execution_id = ""
        self.state = ExchangeState.ROUTING

    # Routing and dialling.

    def start(self) -> None:
        """Ask the resolver, at once if it can say at once."""
        try:
            decision = self._engine.resolver.resolve(self.request, self._client.peer)
        except Exception:  # noqa: BLE001 - a resolver's defect must not cost other clients
            _log.exception("resolver failed")
            decision = replies.internal_error()
        if isinstance(decision, (Target, Reply)):
            self._decided(decision)
        else:
            # What the client sends has nowhere to go, for as long as it takes.
            self._client.hold(True)
            waiting = asyncio.ensure_future(decision)
            waiting.add_done_callback(self._decided_later)
            self._task = waiting

    def _decided_later(self, waited: asyncio.Future[Decision]) -> None:
        if waited.cancelled() or self.state is ExchangeState.OVER:
            return
        self._task = None
        self._client.hold(False)
        error = waited.exception()
        if error is not None:
            _log.error("resolver failed", exc_info=error)
        self._decided(waited.result() if error is None else replies.internal_error())

    def _decided(self, decision: Decision) -> None:
        if isinstance(decision, Reply):
            self.reply(decision)
            return
        self.target = decision
        self.execution_id = decision.execution_id
        self.state = ExchangeState.DIALLING
        self._engine.registry.add(decision.sandbox_id, self)
        key = decision.pool_key
        kept = self._engine.pool.take(key) if key is not None else None
        if kept is not None:
            self._upstream_kept = True
            self._forward_to(kept)
        else:
            self._dial(decision)

    def _dial(self, target: Target) -> None:
        self._upstream_kept = False
        self._task = asyncio.get_running_loop().create_task(self._dialled(target))

    async def _dialled(self, target: Target) -> None:
        try:
            upstream = await self._engine.dialer.dial(target)
        except DialError:
            self._task = None
            self.reply(self._engine.resolver.unreachable(target))
        else:
            self._task = None
            self._forward_to(upstream)

    # The request's way.

    @property
    def takes_data(self) -> bool:
        """Whether what the client sends now belongs to this exchange and has somewhere to go."""
        if self.state is ExchangeState.TUNNELLING:
            return True
        forwarding = self.state in (ExchangeState.FORWARDING, ExchangeState.DRAINING)
        return forwarding and not self.request_done

    def _forward_to(self, upstream: UpstreamConnection) -> None:
        target = self.target
        assert target is not None  # noqa: S101 - set by the state before
        self.state = ExchangeState.FORWARDING
        self._upstream = upstream
        switch = target.allow_upgrade and self.request.upgrade is not None
        upstream.begin(self, to_head=self.request.method == b"HEAD", may_switch=switch)
        head = serialising.request_bytes(
            self.request,
            extra=target.extra,
            upgrade=switch,
            keep_alive=target.pool_key is not None,
        )
        self._to_upstream = MessageWriter(upstream.write_pieces, chunked=self.request.chunked)
        self._to_upstream.begin(head, hold=bool(self._client.ahead) and not self.request_done)
        self._client.pump()
        self._pass_client_end()

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the client; return what follows the request. Raises BadMessageError."""
        if self.state is ExchangeState.TUNNELLING:
            if self._upstream is not None:
                self._upstream.write(data)
            return b""
        reader = self._reader
        pieces = reader.feed(data)
        if self._upstream is not None and self._to_upstream is not None:
            self._to_upstream.send(pieces, end=reader.trailers if reader.done else None)
        if not reader.done:
            return b""
        self._request_complete()
        return reader.rest

    def _request_complete(self) -> None:
        self.request_done = True
        self._pass_client_end()
        if self.answer_done:
            self._finish()

    # The answer's way.

    def on_response_head(self, head: ResponseHead, *, more: bool) -> None:
        """Pass the head on, framed for this client."""
        if head.status == 101:
            self._begin_tunnel(head, more=more)
            return
        if head.status < 200:
            if self.request.minor == 1:
                self._client.write(serialising.interim_bytes(head))
            return
        bodiless = self.request.method == b"HEAD" or head.status in (204, 304)
        unknown_length = not bodiless and (head.chunked or head.content_length is None)
        chunk = unknown_length and self.request.minor == 1
        if self._client.closing or (unknown_length and not chunk):
            self._keep_alive = False
        if not self.request_done and not self._upstream_stays:
            self._keep_alive = False
        self._begin_answer(
            serialising.response_bytes(head, chunked=chunk, close=not self._keep_alive),
            chunked=chunk,
            hold=more,
        )
        self._pass_client_end()

    def _begin_answer(self, head: bytes, *, chunked: bool, hold: bool) -> None:
        self.answer_begun = True
        self._to_client = MessageWriter(self._client.write_pieces, chunked=chunked)
        self._to_client.begin(head, hold=hold)

    @property
    def _upstream_stays(self) -> bool:
        return self._upstream is not None and self._upstream.reusable

    def on_response_data(self, pieces: list[Piece]) -> None:
        """Pass payload on as it comes."""
        if self._to_client is not None:
            self._to_client.send(pieces)

    def on_response_complete(self, trailers: bytes) -> None:
        """End the answer; the exchange ends with it unless the request goes on."""
        if self._to_client is not None:
            self._to_client.send([], end=trailers)
        self.answer_done = True
        if self.request_done:
            self._finish()
        elif not self._upstream_stays:
            self._drop_upstream()
            self._end_with_linger()

    def on_upstream_lost(self, error: Exception | None) -> None:
        """Repeat, answer, or reset: whatever does not pretend."""
        self._upstream = None
        if self.state is ExchangeState.TUNNELLING:
            self._tunnel_lost(error)
        elif self.answer_done:
            self._end_with_linger()
        elif self.answer_begun:
            self._over()
            self._client.reset()
        elif self._may_repeat and self.target is not None:
            self._repeated = True
            self.state = ExchangeState.DIALLING
            self._dial(self.target)
        elif self.target is not None:
            self.reply(self._engine.resolver.unreachable(self.target))

    @property
    def _may_repeat(self) -> bool:
        return self._upstream_kept and not self._repeated and self._is_repeatable

    @property
    def _is_repeatable(self) -> bool:
        begun = self._to_upstream is not None and self._to_upstream.body_begun
        return not begun and self.request.method in _REPEATABLE

    def on_upstream_full(self, full: bool) -> None:
        """Hold the client."""
        self._client.hold(full)

    def client_full(self, full: bool) -> None:
        """Hold the upstream."""
        if self._upstream is not None:
            self._upstream.pause(full)

    # Tunnels.

    def _begin_tunnel(self, head: ResponseHead, *, more: bool) -> None:
        self.state = ExchangeState.TUNNELLING
        self._begin_answer(serialising.interim_bytes(head), chunked=False, hold=more)
        self._client.pump()
        self._pass_client_end()

    def on_upstream_eof(self) -> None:
        """Pass a FIN of the upstream on."""
        self._upstream_finished = True
        self._client.write_eof()
        self._close_finished_tunnel()

    def client_finished(self) -> None:
        """The client sends no more, after the whole request or in a tunnel."""
        self._pass_client_end()
        if self.state is ExchangeState.TUNNELLING:
            self._close_finished_tunnel()

    def _pass_client_end(self) -> None:
        """Send the client's FIN on once nothing of the client can follow.

        What it sent behind a request for an upgrade may turn out to be the tunnel's first bytes.
        """
        upstream = self._upstream
        if not self._client.finished or not self.request_done or upstream is None:
            return
        if self.holds_client_end:
            self._client.await_upgrade()
        else:
            upstream.write_eof()

    @property
    def holds_client_end(self) -> bool:
        """Whether data of a client that has finished waits for the answer to an upgrade."""
        may_switch = self._upstream is not None and self._upstream.may_switch
        return may_switch and not self.answer_begun and bool(self._client.ahead)

    def _close_finished_tunnel(self) -> None:
        if self._client.finished and self._upstream_finished:
            self._tunnel_lost(None)

    def _tunnel_lost(self, error: Exception | None) -> None:
        upstream, self._upstream = self._upstream, None
        self._over()
        if upstream is not None:
            upstream.close()
        if error is None:
            self._client.close()
        else:
            self._client.reset()

    # Ends.

    def reply(self, reply: Reply) -> None:
        """Answer in place of an upstream, none of whose answer was passed on."""
        self._drop_upstream()
        self._unregister()
        self.answer_begun = self.answer_done = True
        keep = self._keep_alive and not self._client.closing and self._worth_draining
        self._keep_alive = keep
        self._client.write(reply.to_bytes(self.request, close=not keep))
        if self.request_done:
            self._finish()
        elif keep:
            self.state = ExchangeState.DRAINING
            self._client.pump()
        else:
            self._end_with_linger()

    @property
    def _worth_draining(self) -> bool:
        """A client that waits for 100 may or may not send its body, so it cannot be drained."""
        if self.request_done:
            return True
        small = self.request.content_length <= self._engine.limits.drained_body
        return small and not self.request.chunked and not self.request.expects_continue

    def broken_request(self, error: BadMessageError) -> None:
        """The client's body is malformed: say so if that is still possible, and end."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.reset()
        if self.answer_begun:
            self._over()
            self._client.reset()
            return
        self._keep_alive = False
        self.reply(Reply(error.status, text=error.text))

    def sandbox_ended(self, reply: Reply) -> None:
        """The execution this exchange belongs to is over."""
        if self.state is ExchangeState.OVER:
            return
        if self._may_go_elsewhere:
            self._route_again()
        elif not self.answer_begun:
            self.reply(reply)
        else:
            self._drop_upstream()
            self._over()
            self._client.reset()

    @property
    def _may_go_elsewhere(self) -> bool:
        """Whether another execution of the sandbox may be given the request, or none was."""
        if self.state is ExchangeState.FORWARDING:
            return not self.answer_begun and self._is_repeatable
        return self.state is ExchangeState.DIALLING

    def _route_again(self) -> None:
        self._drop_upstream()
        self._unregister()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.target = None
        self.state = ExchangeState.ROUTING
        self.start()

    def client_lost(self, error: Exception | None) -> None:
        """The client's connection is gone: end the upstream's at once."""
        upstream, self._upstream = self._upstream, None
        self._over()
        if upstream is None:
            return
        if error is None and self.request_done:
            upstream.abort()
        else:
            upstream.reset()

    def _finish(self) -> None:
        upstream, self._upstream = self._upstream, None
        key = self.target.pool_key if self.target is not None else None
        if upstream is not None:
            if key is not None and upstream.reusable and not self._client.finished:
                upstream.pause(False)
                upstream.let_go()
                self._engine.pool.put(key, upstream)
            else:
                upstream.close()
        self._over()
        self._client.exchange_over(self._keep_alive)

    def _end_with_linger(self) -> None:
        self._over()
        self._client.linger()

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.reset()

    def _unregister(self) -> None:
        if self.target is not None:
            self._engine.registry.remove(self.target.sandbox_id, self)

    def _over(self) -> None:
        self.state = ExchangeState.OVER
        self._unregister()
        if self._task is not None:
            self._task.cancel()
            self._task = None
