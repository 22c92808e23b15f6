"""One HTTP connection: uvicorn's protocol, with limits on peers that misbehave.

uvicorn parses and answers; it has no bound on the size of a head nor on the time a peer takes to
send one, and it forgets a running call when the peer sent another request before it vanished.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from emberbox.envd.asgi import Scope

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 2048
MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and header fields together."""

MAX_WAITING: Final = 8
"""Requests behind the one that is being answered; no client that we know sends any."""

HEAD_SECONDS: Final = 30.0
"""For a new connection to send its first head, and for any later one once it has begun."""

LINGER_SECONDS: Final = 5.0
"""What is left of a request that was answered early is read so long, and then dropped: closing at
once would make the kernel reset the connection, and the client might never see the answer."""

_FLUSH_BYTES = 64 * 1024
_PEER = "emberbox.peer"


class Peer:
    """The other end of a connection, for the call that it has made."""

    def __init__(self) -> None:
        self.gone = False
        self._callback: Callable[[], object] | None = None

    def notify(self, callback: Callable[[], object] | None) -> None:
        """Calls `callback`, in place of any before, when the peer goes, or now if it has."""
        self._callback = callback
        if self.gone and callback is not None:
            callback()

    def lost(self) -> None:
        """The connection ended."""
        self.gone = True
        if self._callback is not None:
            self._callback()


def peer_of(scope: Scope) -> Peer:
    """Who made the request."""
    peer: Peer = scope["extensions"][_PEER]
    return peer


class _Gathering:
    """A transport that sends what is written in one turn of the event loop as one segment.

    The head of a stream and its first message, or the last message and the end of the stream,
    are then one system call here and one wake-up in every proxy on the way.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._pieces.clear()
        self._transport.abort()


class Connection(HttpToolsProtocol):
    """What uvicorn makes for each connection. `Peer` tells a call that its client is gone."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._peer = Peer()
        self._active: RequestResponseCycle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MAX_CONNECTIONS:
            logger.warning("refused a connection: there are %d", MAX_CONNECTIONS)
            transport.abort()
            return
        # What is written goes to the kernel or makes the writer wait: one message at a time.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]
        self._close_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self not in self.connections:  # refused
            return
        self._keep_open()
        active = self._active
        if active is not None and not active.response_complete:
            active.disconnected = True
            active.message_event.set()
        super().connection_lost(exc)
        self._peer.lost()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()
            elif self._deadline is None:
                self._close_in(HEAD_SECONDS)

    def _refuse_head(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        text = f"the request line and header fields are larger than {MAX_HEAD_BYTES} bytes"
        answer = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}"
        )
        self.transport.write(answer.encode())
        self._refused = True
        self._close_in(LINGER_SECONDS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self.scope["extensions"] = {_PEER: self._peer}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._keep_open()
        super().on_headers_complete()
        if len(self.pipeline) > MAX_WAITING:
            self.transport.abort()
        elif self.pipeline:
            # uvicorn stops reading here; then it would not notice that the peer is gone.
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._keep_open()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._active is not None and self._active.response_complete and self._active.more_body:
            self._close_in(LINGER_SECONDS)

    def _close_in(self, seconds: float) -> None:
        self._keep_open()
        self._deadline = self.loop.call_later(seconds, self._close)

    def _close(self) -> None:
        self._deadline = None
        self.transport.abort()  # does not wait for a peer that takes no answer

    def _keep_open(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
