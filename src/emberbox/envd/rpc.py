"""The one place that knows connectrpc: an upgrade, or a replacement, happens here.

What is added to the library:
- errors of envd become errors of the protocol, also unexpected ones and undecodable messages;
- a stream answers HTTP 200 whatever happens, with the error in its EndStream message: browsers'
  clients do not read the body of another status;
- handlers learn at once that their client is gone, not at their next message;
- request bodies are bounded in size and time, all together too (`request_body`);
- nothing is compressed, whatever the client offers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import struct
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from connectrpc.code import Code
from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.errors import ConnectError

from emberbox._gen.envd.filesystem.filesystem_connect import FilesystemASGIApplication
from emberbox._gen.envd.process.process_connect import ProcessASGIApplication
from emberbox.envd.connection import Peer, peer_of
from emberbox.envd.errors import EnvdError, UnauthenticatedError
from emberbox.envd.request_body import MAX_MESSAGE_BYTES, Bodies, too_deep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection

    from connectrpc.request import RequestContext
    from protobuf import Message

    from emberbox._gen.envd.filesystem.filesystem_connect import Filesystem
    from emberbox._gen.envd.process.process_connect import Process
    from emberbox.envd.asgi import App, Event, Receive, Scope, Send

logger = logging.getLogger(__name__)

_STREAM_TYPE = b"application/connect+"
_DEFAULT_KEEPALIVE = 90.0
_MAX_DIGITS = 9

_bodies = Bodies()

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


_peer: ContextVar[Peer] = ContextVar("peer")
_reply: ContextVar[_Reply] = ContextVar("reply")


def current_disconnect() -> Peer:
    """The client of the call that is being handled."""
    return _peer.get()


def last_message_follows() -> None:
    """The handler's next message is its last: it is sent together with the end of the stream."""
    _reply.get().hold()


@asynccontextmanager
async def limited(context: RequestContext[_Request, _Response]) -> AsyncGenerator[None]:
    """The block ends when the client's time is over, or when the client is gone.

    Raises TimeoutError or ConnectError.
    """
    peer, task = current_disconnect(), asyncio.current_task()
    assert task is not None  # noqa: S101 - calls are tasks
    peer.notify(task.cancel)
    try:
        async with asyncio.timeout(time_left(context)):
            yield
    except asyncio.CancelledError:
        if not peer.gone:
            raise
        task.uncancel()
        raise ConnectError(Code.CANCELED, "the client is gone") from None
    finally:
        peer.notify(None)


def caller(context: RequestContext[_Request, _Response]) -> str | None:
    """The user named by Basic authorization; None for the default user.

    Raises UnauthenticatedError for a header that is not Basic.
    """
    header = context.request_headers.get("authorization")
    if not header:
        return None
    scheme, _, encoded = header.partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        decoded = ""
    if scheme.lower() != "basic" or ":" not in decoded:
        raise UnauthenticatedError("the Authorization header is not 'Basic <user>:'")
    return decoded.partition(":")[0] or None


def time_left(context: RequestContext[_Request, _Response]) -> float | None:
    """Seconds until the client's limit; None without one. A limit of 0 means none."""
    if context.request_headers.get("connect-timeout-ms") in {None, "0"}:
        return None
    remaining = context.timeout_ms
    return None if remaining is None else max(remaining, 0.0) / 1000


def keepalive_interval(context: RequestContext[_Request, _Response]) -> float:
    """Seconds of silence after which the client wants a sign of life."""
    header = context.request_headers.get("keepalive-ping-interval", "")
    usable = header.isascii() and header.isdigit() and len(header) <= _MAX_DIGITS
    return float(header) or _DEFAULT_KEEPALIVE if usable else _DEFAULT_KEEPALIVE


def process_app(service: Process) -> App:
    """The ASGI application of process.Process."""
    return _Guard(
        ProcessASGIApplication(
            service,
            interceptors=[_Errors()],
            codecs=_codecs(),
            compressions=(),
            read_max_bytes=MAX_MESSAGE_BYTES,
        ),
        client_streams={"/process.Process/StreamInput"},
    )


def filesystem_app(service: Filesystem) -> App:
    """The ASGI application of filesystem.Filesystem."""
    return _Guard(
        FilesystemASGIApplication(
            service,
            interceptors=[_Errors()],
            codecs=_codecs(),
            compressions=(),
            read_max_bytes=MAX_MESSAGE_BYTES,
        )
    )


def _translate(error: Exception) -> ConnectError:
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, EnvdError):
        return ConnectError(Code(error.code), error.message)
    if isinstance(error, TimeoutError):
        return ConnectError(Code.DEADLINE_EXCEEDED, "the time limit of the call is over")
    logger.error("unexpected error in a call", exc_info=error)
    return ConnectError(Code.INTERNAL, f"internal error: {error}")


class _Errors:
    """Wraps every handler; connectrpc recognises the three kinds by these names."""

    async def intercept_unary(
        self,
        call_next: Callable[[_Request, RequestContext[_Request, _Response]], Awaitable[_Response]],
        request: _Request,
        context: RequestContext[_Request, _Response],
        /,
    ) -> _Response:
        try:
            return await call_next(request, context)
        except Exception as error:
            raise _translate(error) from error

    async def intercept_client_stream(
        self,
        call_next: Callable[
            [AsyncIterator[_Request], RequestContext[_Request, _Response]], Awaitable[_Response]
        ],
        request: AsyncIterator[_Request],
        context: RequestContext[_Request, _Response],
        /,
    ) -> _Response:
        try:
            return await call_next(request, context)
        except Exception as error:
            raise _translate(error) from error

    async def intercept_server_stream(
        self,
        call_next: Callable[
            [_Request, RequestContext[_Request, _Response]], AsyncIterator[_Response]
        ],
        request: _Request,
        context: RequestContext[_Request, _Response],
        /,
    ) -> AsyncIterator[_Response]:
        events = call_next(request, context)
        try:
            async for event in events:
                yield event
        except Exception as error:
            raise _translate(error) from error
        finally:
            await events.aclose()  # type: ignore[attr-defined] # our handlers are generators


class _StrictCodec:
    """A codec that blames the client for what cannot be decoded."""

    def __init__(self, codec: Codec[Message, Message]) -> None:
        self._codec = codec

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Message) -> bytes:
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> Message:
        if self._codec.name() == "json" and too_deep(data):
            raise ConnectError(Code.INVALID_ARGUMENT, "cannot decode message: nested too deeply")
        try:
            return self._codec.decode(data, message_class)
        except Exception as error:
            raise ConnectError(Code.INVALID_ARGUMENT, f"cannot decode message: {error}") from error


def _codecs() -> list[Codec[Message, Message]]:
    return [_StrictCodec(proto_json_codec()), _StrictCodec(proto_binary_codec())]


class _Guard:
    """Around a connectrpc application: disconnects, the form of errors, unknown methods."""

    def __init__(self, app: App, client_streams: Collection[str] = ()) -> None:
        self._app = app
        self._client_streams = client_streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = peer_of(scope)
        reply = _Reply(scope, send)
        for name, value in scope["headers"]:
            if not value.isascii():  # connectrpc decodes them all, and fails
                await reply.refuse(f"header '{name.decode('latin-1')}' is not ASCII")
                return
        tokens = _peer.set(peer), _reply.set(reply)
        take = _bodies.streamed if scope["path"] in self._client_streams else _bodies.whole
        body = take(receive, framed=reply.is_stream)
        try:
            await self._app(scope, body.receive, reply)
        except ConnectError as error:  # connectrpc wraps the cancellation of the server's task
            logger.debug("call ended: %s", error)
        finally:
            body.release()
            peer.notify(None)
            _peer.reset(tokens[0])
            _reply.reset(tokens[1])


class _Reply:
    """What connectrpc sends, with two changes.

    Errors that it answers by status alone get the form that clients read, and the last message of
    a stream goes out with its end: one system call here, one wake-up in every proxy on the way.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        headers = dict(scope["headers"])
        self._content_type: bytes = headers.get(b"content-type", b"")
        self.is_stream = self._content_type.startswith(_STREAM_TYPE)
        self._path: str = scope["path"]
        self._status: int | None = None
        self._holding = False
        self._held = b""

    def hold(self) -> None:
        """Keep the next piece of the body until there is another."""
        self._holding = True

    async def __call__(self, message: Event) -> None:
        if self._holding and message["type"] == "http.response.body":
            self._held += message["body"]
            if message["more_body"]:
                return
            message["body"] = self._held
        if message["type"] == "http.response.start" and message["status"] != 200:
            self._status = message["status"]
            return
        if self._status is None:
            await self._send(message)
            return
        error = _error_of(self._status, message.get("body", b""), self._path)
        await self._answer(self._status, error)

    async def refuse(self, message: str) -> None:
        """Answer in place of connectrpc."""
        await self._answer(400, {"code": "invalid_argument", "message": message})

    async def _answer(self, status: int, error: dict[str, str]) -> None:
        body = json.dumps(error).encode()
        kind = b"application/json"
        if self.is_stream:
            payload = json.dumps({"error": error}).encode()
            body = struct.pack(">BI", 2, len(payload)) + payload
            status, kind = 200, self._content_type
        elif error["code"] == "unimplemented":
            status = 501
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


_BY_STATUS = {
    404: ("unimplemented", "unknown method: {path}"),
    405: ("unimplemented", "{path} takes POST only"),
    415: ("invalid_argument", "the content type is not one of Connect with JSON or protobuf"),
}


def _error_of(status: int, body: bytes, path: str) -> dict[str, str]:
    if body:
        parsed: dict[str, str] = json.loads(body)
        return parsed
    code, text = _BY_STATUS.get(status, ("unknown", "HTTP {status}"))
    return {"code": code, "message": text.format(path=path, status=status)}
