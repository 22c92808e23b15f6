"""Pages of any origin may call envd: a browser shows them its answers.

A page needs the token or a signed URL like any client. Cookies are not asked for and mean nothing
here, so "any origin" gives a page nothing that it could not do from elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.envd.asgi import respond

if TYPE_CHECKING:
    from emberbox.envd.asgi import App, Event, HeaderList, Receive, Scope, Send

_ANY = (b"access-control-allow-origin", b"*")
_READABLE = (b"access-control-expose-headers", b"*")
_METHODS = (b"access-control-allow-methods", b"GET, HEAD, POST")
_REMEMBERED = (b"access-control-max-age", b"7200")  # seconds; browsers take no more
_ASKED_METHOD = b"access-control-request-method"
_ASKED_HEADERS = b"access-control-request-headers"


class Cors:
    """Around the application: answers preflights, marks the answers to pages."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if b"origin" not in headers:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and _ASKED_METHOD in headers:
            await respond(send, 204, headers=_allowed(headers))
        else:
            await self._app(scope, receive, _marked(send))


def _allowed(headers: dict[bytes, bytes]) -> HeaderList:
    # "*" would leave out Authorization, so what is asked for is named.
    asked = headers.get(_ASKED_HEADERS, b"")
    names = [(b"access-control-allow-headers", asked)] if asked else []
    return [_ANY, _METHODS, *names, _REMEMBERED]


def _marked(send: Send) -> Send:
    async def marked(message: Event) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], _ANY, _READABLE]}
        await send(message)

    return marked
