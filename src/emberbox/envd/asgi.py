"""The little of HTTP that the plain endpoints need, straight on ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from emberbox.envd.connection import peer_of
from emberbox.envd.errors import EnvdError, InvalidArgumentError, TooLargeError

# ASGI's own types: messages and scopes are dictionaries whose values depend on their "type".
Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

_MAX_JSON_BYTES = 4 * 1024 * 1024


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


class Request:
    """A request as the endpoints read it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._complete = False
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.peer: str = scope["client"][0] if scope.get("client") else ""

    @cached_property
    def headers(self) -> dict[str, str]:
        """By lower-case name; of a repeated header the last."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._scope["headers"]
        }

    @cached_property
    def query(self) -> dict[str, str]:
        """Decoded; of a repeated name the first."""
        text = self._scope["query_string"].decode("latin-1")
        pairs = parse_qsl(text, keep_blank_values=True)
        return dict(reversed(pairs))

    @property
    def client_gone(self) -> bool:
        """Whether the connection has ended: what is sent then is dropped without a word."""
        return peer_of(self._scope).gone

    async def receive_chunk(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises ClientGoneError."""
        if self._complete:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        self._complete = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def json(self) -> dict[str, object]:
        """The body as a JSON object. Raises InvalidArgumentError or TooLargeError."""
        body = bytearray()
        while (chunk := await self.receive_chunk()) is not None:
            body += chunk
            if len(body) > _MAX_JSON_BYTES:
                raise TooLargeError(f"the body is larger than {_MAX_JSON_BYTES} bytes")
        try:
            parsed = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:  # the latter for thousands of levels
            raise InvalidArgumentError(f"the body is not JSON: {error}") from error
        if not isinstance(parsed, dict):
            raise InvalidArgumentError("the body is not a JSON object")
        return parsed


async def respond(
    send: Send, status: int, body: bytes = b"", headers: HeaderList | None = None
) -> None:
    """A whole response."""
    lines = [*(headers or []), (b"content-length", str(len(body)).encode())]
    if status == 204:
        lines.pop()
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, value: object) -> None:
    """A JSON response."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    await respond(send, status, body, [(b"content-type", b"application/json")])


async def respond_error(send: Send, error: EnvdError) -> None:
    """The form of errors on all plain endpoints."""
    await respond_json(send, error.status, {"code": error.status, "message": error.message})
