"""What stands before the framework: request ids, raw paths, a cap on bodies, a line of log and a
sample a request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from starlette.exceptions import HTTPException
from structlog.contextvars import bound_contextvars

from emberbox.api_server import metrics
from emberbox.api_server.error_answers import error_response
from emberbox.shared import tracing
from emberbox.shared.correlation import request_id_from
from emberbox.shared.protocol import HEADER_REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger("emberbox.api_server.access")

_REQUEST_ID = HEADER_REQUEST_ID.lower().encode()


class RawPath:
    """Lets routes match on the path as it was sent: `%2F` stays inside its segment.

    Path parameters arrive encoded, so their types decode them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        raw: bytes | None = scope.get("raw_path") if scope["type"] == "http" else None
        if raw is not None:
            # In place: what the framework adds, such as the route, is for those outside as well.
            scope["path"] = raw.partition(b"?")[0].decode("latin-1")
        await self._app(scope, receive, send)


class BodyLimit:
    """Answers 413 to bodies above `most` bytes, announced or streamed."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced(scope) > self._most:
            response = error_response(413, self._message)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        left = self._most

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, self._message, {"Connection": "close"})
            return message

        return counted

    @property
    def _message(self) -> str:
        return f"The request body is larger than {self._most} bytes"


class Correlated:
    """Names each request, in its answer and in all that is logged on the way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(_header(scope, _REQUEST_ID))

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_REQUEST_ID, request_id.encode())]
            await send(message)

        with bound_contextvars(request_id=request_id):
            await self._app(scope, receive, named)


class Observed:
    """One line of log, one sample and one span for each request; never a header, they hold keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with tracing.continued("api", _texts(scope)):
                await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - began
            metrics.count_request(scope["method"], _route(scope), status, seconds)
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(seconds * 1000, 1),
            )


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for name, value in headers if name == wanted), None)


def _texts(scope: Scope) -> Iterator[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])


def _route(scope: Scope) -> str:
    """The pattern that matched, not the path: ids would make a metric of each sandbox."""
    return getattr(scope.get("route"), "path", "other")


def _announced(scope: Scope) -> int:
    value = _header(scope, b"content-length")
    return int(value) if value is not None and value.isdigit() else 0
