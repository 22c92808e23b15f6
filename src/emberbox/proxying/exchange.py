"""One request and its answer: from the head to the last byte, or to the beginning of a tunnel.

Its states are those of exchange_states.py.
The upstream's end is never turned into a clean end towards the client, nor the client's into a
complete request towards the upstream. A client that finishes sending (FIN) after a whole request
is passed on as just that: the server behind decides whether it goes on, as it would if they were
connected directly.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from emberbox.proxying import repeating, replies, serialising
from emberbox.proxying.bodies import BodyReader, ChunkedReader, LengthReader, framed
from emberbox.proxying.counts import Count
from emberbox.proxying.errors import BadMessageError, DialError
from emberbox.proxying.exchange_states import ExchangeState
from emberbox.proxying.replies import Reply
from emberbox.proxying.resolving import Target
from emberbox.proxying.tunnel import Tunnel

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from emberbox.proxying.bodies import Piece
    from emberbox.proxying.engine import Engine
    from emberbox.proxying.heads import RequestHead, ResponseHead
    from emberbox.proxying.registry import Group
    from emberbox.proxying.resolving import Decision
    from emberbox.proxying.sides import ClientSide
    from emberbox.proxying.upstream import UpstreamConnection

_log = structlog.get_logger()
_ROUTING, _DIALLING = ExchangeState.ROUTING, ExchangeState.DIALLING
_FORWARDING, _DRAINING = ExchangeState.FORWARDING, ExchangeState.DRAINING
_OVER = ExchangeState.OVER
_DIALLED, _DIALS_FAILED = int(Count.DIALLED), int(Count.DIALS_FAILED)
_REUSED, _REPEATED, _TUNNELS = int(Count.REUSED), int(Count.REPEATED), int(Count.TUNNELS)


class Exchange:
    """The state machine between one client connection and one upstream connection."""

    # What most exchanges never change stands in the class: there is one for each request.
    state = _ROUTING
    target: Target | None = None
    ended = 0.0
    status = 0
    sent = 0
    received = 0
    cut = False
    answer_begun = False
    answer_done = False
    _group: Group | None = None
    _task: asyncio.Future[Decision] | asyncio.Future[None] | None = None
    _reader: BodyReader | None = None
    _upstream: UpstreamConnection | None = None
    _repeated = False
    _looked_elsewhere = False
    _held_head = b""
    _body_sent = False
    _chunks_answer = False

    def __init__(self, engine: Engine, client: ClientSide, request: RequestHead) -> None:
        self._engine = engine
        self.client = client
        self.request = request
        self.ordinal = client.requests
        self.begun = monotonic()
        fields = request.fields
        self._keep_alive = fields.keep_alive
        self.request_done = not fields.has_body
        if fields.has_body:
            self._reader = (
                ChunkedReader() if fields.chunked else LengthReader(fields.content_length or 0)
            )

    @property
    def execution_id(self) -> str:
        """The run of the sandbox that it was routed to."""
        return "" if self.target is None else self.target.execution_id

    # Routing and dialling.

    def start(self) -> None:
        """Ask the resolver, at once if it can say at once."""
        try:
            decision = self._engine.resolver.resolve(self.request, self.client.peer)
        except Exception:  # noqa: BLE001 - a resolver's defect must not cost other clients
            _log.exception("resolver failed")
            decision = replies.internal_error()
        if isinstance(decision, Target):
            self._go_to(decision)
        elif isinstance(decision, Reply):
            self.reply(decision)
        else:
            self._await(decision)

    def _await(self, decision: Awaitable[Decision]) -> None:
        """What the client sends has nowhere to go, for as long as it takes."""
        self.client.hold(True)
        waiting = asyncio.ensure_future(decision)
        waiting.add_done_callback(self._decided_later)
        self._task = waiting

    def _decided_later(self, waited: asyncio.Future[Decision]) -> None:
        if waited.cancelled() or self.state is _OVER:
            return
        self._task = None
        self.client.hold(False)
        error = waited.exception()
        if error is not None:
            _log.error("resolver failed", exc_info=error)
        decision = waited.result() if error is None else replies.internal_error()
        if isinstance(decision, Reply):
            self.reply(decision)
        elif self._body_sent:
            self.reply(replies.transitioning(decision.sandbox_id, of_envd=decision.of_envd))
        else:
            self._go_to(decision)

    def _look_elsewhere(self) -> bool:
        """Once, when a proxy of ours says that its host does not have the sandbox."""
        target = self.target
        if target is None or target.finder is None or self._looked_elsewhere:
            return False
        self._looked_elsewhere = True
        self._leave_target()
        self._await(target.finder.find_elsewhere(self.request, target))
        return True

    def _go_to(self, target: Target) -> None:
        self.target = target
        engine = self._engine
        group = engine.registry[target.sandbox_id]
        if 0 < engine.limits.per_sandbox <= len(group):
            self.reply(engine.one_too_many(target))
            return
        self._group = group
        group.add(self)
        kept = None if target.pool_key is None else engine.pool.take(target.pool_key)
        if kept is None:
            self._dial(target)
        else:
            engine.counts[_REUSED] += 1
            self._forward_to(kept, target)

    def _dial(self, target: Target) -> None:
        self.state = _DIALLING
        self._task = asyncio.get_running_loop().create_task(self._dialled(target))

    async def _dialled(self, target: Target) -> None:
        try:
            upstream = await self._engine.dialer.dial(target, self._engine.outbox)
        except DialError:
            self._task = None
            self._engine.counts[_DIALS_FAILED] += 1
            self.reply(self._engine.resolver.unreachable(target))
        else:
            self._task = None
            self._engine.counts[_DIALLED] += 1
            self._forward_to(upstream, target)

    # The request's way.

    @property
    def takes_data(self) -> bool:
        """Whether what the client sends now belongs to this exchange and has somewhere to go."""
        return not self.request_done and (self.state is _FORWARDING or self.state is _DRAINING)

    def _forward_to(self, upstream: UpstreamConnection, target: Target) -> None:
        self.state = _FORWARDING
        self._upstream = upstream
        request = self.request
        if request.fields.plain:
            upstream.begin(self, to_head=request.method == b"HEAD", may_switch=False)
            upstream.write(serialising.request_bytes(request, target))
        else:
            self._forward_more(upstream, target)
        if self.client.finished:
            self._pass_client_end()

    def _forward_more(self, upstream: UpstreamConnection, target: Target) -> None:
        """Begin a request with a body, or one that may become a tunnel."""
        request, client = self.request, self.client
        upgrade = request.fields.upgrade if target.allow_upgrade else None
        upstream.begin(self, to_head=request.method == b"HEAD", may_switch=upgrade is not None)
        head = serialising.request_bytes(request, target, upgrade=upgrade)
        if self.request_done:
            upstream.write(head)
        elif client.ahead or client.finished:  # finished with nothing ahead, it is cut short
            self._held_head = head
            client.pump()
        else:
            upstream.write(head)

    def feed(self, data: bytes) -> bool:
        """Take bytes of the client, and give back what follows the request.

        False: nothing goes on.
        """
        reader = self._reader
        assert reader is not None  # noqa: S101 - see takes_data
        try:
            pieces = reader.feed(data)
        except BadMessageError as error:
            self._break_off(error)
            return False
        for piece in pieces:
            self.received += len(piece)
        if self._upstream is not None:
            self._send_on(pieces, reader.trailers if reader.done else None, self._upstream)
        if reader.done:
            self.client.ahead = reader.rest
            self._request_complete()
        return True

    def _send_on(
        self, pieces: list[Piece], trailers: bytes | None, upstream: UpstreamConnection
    ) -> None:
        if self.request.fields.chunked:
            pieces = framed(pieces, trailers)
        self._body_sent = self._body_sent or bool(pieces)
        if self._held_head:
            pieces.insert(0, self._held_head)
            self._held_head = b""
        if pieces:
            upstream.write_pieces(pieces)

    def _request_complete(self) -> None:
        self.request_done = True
        if self.client.finished:
            self._pass_client_end()
        if self.answer_done:
            self._finish()

    # The answer's way.

    def on_interim_head(self, head: ResponseHead) -> None:
        """Pass it on to a client that knows such heads."""
        if self.request.fields.minor == b"1":
            self.client.write(serialising.interim_bytes(head))

    def on_response_head(
        self, head: ResponseHead, pieces: list[Piece], trailers: bytes | None
    ) -> None:
        """Pass the head on, framed for this client, and what came with it."""
        if repeating.NOT_HERE in head.found and self._look_elsewhere():
            return
        self.answer_begun = True
        self.status = head.status
        client = self.client
        for piece in pieces:
            self.sent += len(piece)
        ends = client.closing or not (self._keep_alive and self.request_done)
        if head.content_length is not None and not ends:
            answer = head.plain
        else:
            answer = self._reframed(head)
            if self._chunks_answer:
                pieces = framed(pieces, trailers)
        client.write_pieces([answer, *pieces])
        if client.finished:
            self._pass_client_end()
        if trailers is not None:
            self._answer_complete()

    def _reframed(self, head: ResponseHead) -> bytes:
        """The head where the body's end is told otherwise, or the connection ends with it."""
        chunk = head.content_length is None and head.may_have_body(self.request.method)
        if chunk and self.request.fields.minor == b"0":
            chunk = self._keep_alive = False
        if self.client.closing or not (self.request_done or self._upstream_stays):
            self._keep_alive = False
        self._chunks_answer = chunk
        return serialising.response_bytes(head, chunked=chunk, close=not self._keep_alive)

    @property
    def _upstream_stays(self) -> bool:
        return self._upstream is not None and self._upstream.reusable

    def on_response_data(self, pieces: list[Piece], trailers: bytes | None) -> None:
        """Pass payload on as it comes; the exchange ends with it unless the request goes on."""
        for piece in pieces:
            self.sent += len(piece)
        if self._chunks_answer:
            pieces = framed(pieces, trailers)
        if pieces:
            self.client.write_pieces(pieces)
        if trailers is not None:
            self._answer_complete()

    def _answer_complete(self) -> None:
        self.answer_done = True
        if self.request_done:
            self._finish()
        elif not self._upstream_stays:
            self._drop_upstream()
            self._end_with_linger()

    def on_upstream_lost(self, error: Exception | None) -> None:
        """Repeat, answer, or reset: whatever does not pretend."""
        self._upstream = None
        if self.answer_done:
            self._end_with_linger()
        elif self.answer_begun:
            self._over()
            self.client.reset()
        elif self._may_repeat and self.target is not None:
            self._repeated = True
            self._engine.counts[_REPEATED] += 1
            self._dial(self.target)
        elif self.target is not None:
            self.reply(self._engine.resolver.unreachable(self.target))

    @property
    def _may_repeat(self) -> bool:
        """Connections that may be kept may die of age, or wait in vain to be accepted."""
        kept = self.target is not None and self.target.pool_key is not None
        return kept and not self._repeated and self._is_repeatable

    @property
    def _is_repeatable(self) -> bool:
        return not self._body_sent and self.request.method in repeating.METHODS

    def on_upstream_full(self, full: bool) -> None:
        """Hold the client."""
        self.client.hold(full)

    def client_full(self, full: bool) -> None:
        """Hold the upstream."""
        if self._upstream is not None:
            self._upstream.pause(full)

    # The end of what the client sends.

    def client_finished(self) -> None:
        """It sends no more, after the whole request."""
        self._pass_client_end()

    def _pass_client_end(self) -> None:
        """Send the client's FIN on once nothing of the client can follow.

        What it sent behind a request for an upgrade may turn out to be the tunnel's first bytes.
        """
        upstream = self._upstream
        if not self.request_done or upstream is None:
            return
        if self.holds_client_end:
            self.client.await_upgrade()
        else:
            upstream.write_eof()

    @property
    def holds_client_end(self) -> bool:
        """Whether data of a client that has finished waits for the answer to an upgrade."""
        may_switch = self._upstream is not None and self._upstream.may_switch
        return may_switch and not self.answer_begun and bool(self.client.ahead)

    # Tunnels.

    def on_switch(self, head: ResponseHead, data: bytes) -> None:
        """Pass the head on and let a tunnel take over both connections."""
        upstream, group = self._upstream, self._group
        assert upstream is not None  # noqa: S101 - it is the caller
        assert group is not None  # noqa: S101 - it was routed
        self._upstream = None
        self._leave_sandbox()
        self.client.write(serialising.interim_bytes(head))
        self.status = 101
        self._engine.counts[_TUNNELS] += 1
        tunnel = Tunnel(self.client, upstream, self.execution_id, self._tunnel_over)
        group.add(tunnel)
        self._group = group
        tunnel.begin(data)

    def _tunnel_over(self, tunnel: Tunnel) -> None:
        if self._group is not None:
            self._group.discard(tunnel)
        self.sent, self.received = tunnel.sent, tunnel.received
        self.answer_done = True
        self._over()

    # Ends.

    def reply(self, reply: Reply) -> None:
        """Answer in place of an upstream, none of whose answer was passed on."""
        self._drop_upstream()
        self._leave_sandbox()
        self.answer_begun = self.answer_done = True
        self.status = reply.status
        drained = self.request.fields.is_short(self._engine.limits.drained_body)
        keep = self._keep_alive and not self.client.closing and (self.request_done or drained)
        self._keep_alive = keep
        self.client.write(reply.to_bytes(self.request, close=not keep))
        if self.request_done:
            self._finish()
        elif keep:
            self.state = _DRAINING
            self.client.pump()
        else:
            self._end_with_linger()

    def _break_off(self, error: BadMessageError) -> None:
        """The client's body is malformed: say so if that is still possible, and end."""
        self._drop_upstream()
        if self.answer_begun:
            self._over()
            self.client.reset()
        else:
            self._keep_alive = False
            self.reply(Reply(error.status, text=error.text))

    def sandbox_ended(self, reply: Reply) -> None:
        """The execution this exchange belongs to is over."""
        if self.state is _OVER:
            return
        if self._may_go_elsewhere:
            self._route_again()
        elif not self.answer_begun:
            self.reply(reply)
        else:
            self._drop_upstream()
            self._over()
            self.client.reset()

    @property
    def _may_go_elsewhere(self) -> bool:
        """Whether another execution of the sandbox may be given the request, or none was."""
        if self.state is _FORWARDING:
            return not self.answer_begun and self._is_repeatable
        return self.state is _DIALLING

    def _route_again(self) -> None:
        self._leave_target()
        self.target = None
        self.start()

    def _leave_target(self) -> None:
        self._drop_upstream()
        self._leave_sandbox()
        self._stop_waiting()
        self.state = _ROUTING

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
        upstream, target = self._upstream, self.target
        if upstream is not None and target is not None:
            self._upstream = None
            key = target.pool_key
            if key is not None and upstream.reusable and not self.client.finished:
                self._engine.pool.put(key, upstream)
            else:
                upstream.close()
        self._over()
        self.client.exchange_over(self._keep_alive)

    def _end_with_linger(self) -> None:
        self._over()
        self.client.linger()

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.reset()

    def _stop_waiting(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _leave_sandbox(self) -> None:
        if self._group is not None:
            self._group.discard(self)
            self._group = None

    def _over(self) -> None:
        if self.state is _OVER:
            return
        self.state = _OVER
        self._leave_sandbox()
        self._stop_waiting()
        self.ended = monotonic()
        self.cut = not self.answer_done
        self._engine.journal.note(self)
