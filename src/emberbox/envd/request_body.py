"""The bodies of Connect requests, as they arrive: whole, within bounds, or refused.

connectrpc reads a body to its end, however long that takes, counts each alone and takes a message
that was cut off for no message.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from connectrpc.code import Code
from connectrpc.errors import ConnectError

if TYPE_CHECKING:
    from emberbox.envd.asgi import Event, Receive

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
"""The largest message taken. It is held in memory several times over while it is decoded."""

MAX_HELD_BYTES: Final = 2 * MAX_MESSAGE_BYTES
"""Of all calls together that did not arrive in one piece or whose work is not done."""

PATIENCE: Final = 60.0
"""Seconds without a byte of a body that is not a client's stream."""

MAX_DEPTH: Final = 100
"""Of arrays and objects in JSON."""

_JSON_STRUCTURE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_PREFIX_BYTES = 5
_COMPRESSED = 1


class Frames:
    """Follows the envelopes of a body: flags, length, so many bytes."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._begun = 0
        self._prefix = b""
        self._left = 0
        self._length = 0

    @property
    def incomplete(self) -> int:
        """Bytes of a message that is not whole yet."""
        return self._length - self._left if self._left else len(self._prefix)

    def feed(self, data: bytes) -> None:
        """Raises ConnectError for a message too large, compressed, or one too many."""
        position = 0
        while position < len(data):
            if self._left:
                taken = min(self._left, len(data) - position)
                self._left -= taken
                position += taken
                continue
            end = position + _PREFIX_BYTES - len(self._prefix)
            self._prefix += data[position:end]
            position = end
            if len(self._prefix) == _PREFIX_BYTES:
                self._begin(self._prefix)
                self._prefix = b""

    def _begin(self, prefix: bytes) -> None:
        self._begun += 1
        if self._most is not None and self._begun > self._most:
            raise ConnectError(Code.UNIMPLEMENTED, "the call takes one message, not several")
        if prefix[0] & _COMPRESSED:
            raise ConnectError(Code.UNIMPLEMENTED, "compressed messages are not taken")
        self._length = self._left = int.from_bytes(prefix[1:], "big")
        if self._length > MAX_MESSAGE_BYTES:
            raise _too_large()

    def finish(self) -> None:
        """The body is over. Raises ConnectError in the middle of a message."""
        if self._left or self._prefix:
            raise ConnectError(Code.INVALID_ARGUMENT, "the request ends in the middle of a message")


class Bodies:
    """Counts what the bodies of all calls hold."""

    def __init__(self) -> None:
        self.held = 0

    def whole(self, receive: Receive, *, framed: bool) -> Body:
        """Of a call that takes one message."""
        return _Whole(self, receive, Frames(1) if framed else None)

    def streamed(self, receive: Receive, *, framed: bool) -> Body:
        """Of a call that takes messages as long as the client likes, with any pauses."""
        return Body(self, receive, Frames(None) if framed else None)


class Body:
    """One request's; `receive` takes the place of the server's."""

    def __init__(self, bodies: Bodies, receive: Receive, frames: Frames | None) -> None:
        self._bodies = bodies
        self._receive = receive
        self._frames = frames
        self._held = 0
        self._complete = False

    async def receive(self) -> Event:
        """ASGI's. Raises ConnectError for what cannot become a request."""
        message = await self._receive()
        if not self._complete and message["type"] == "http.request":
            self._take(message)
            waiting = self._frames.incomplete if self._frames else 0
            self._hold(waiting + len(message["body"]))
        return message

    def release(self) -> None:
        """The call is over."""
        self._bodies.held -= self._held
        self._held = 0

    def _take(self, message: Event) -> None:
        self._complete = not message["more_body"]
        if self._frames is not None:
            self._frames.feed(message["body"])
            if self._complete:
                self._frames.finish()

    def _hold(self, size: int) -> None:
        self._bodies.held += size - self._held
        self._held = size
        if self._bodies.held > MAX_HELD_BYTES:
            raise ConnectError(
                Code.RESOURCE_EXHAUSTED,
                "the sandbox holds too many large requests at once: send them one by one",
            )


class _Whole(Body):
    async def receive(self) -> Event:
        if self._complete:
            return await self._receive()
        message = await self._next()
        if self._is_last(message):
            return message
        pieces = bytearray(message["body"])
        while True:
            self._hold(len(pieces))
            message = await self._next()
            if message["type"] != "http.request":
                return message
            pieces += message["body"]
            if len(pieces) > MAX_MESSAGE_BYTES + _PREFIX_BYTES:
                raise _too_large()
            if self._is_last(message):
                return {**message, "body": bytes(pieces)}

    @staticmethod
    def _is_last(message: Event) -> bool:
        return message["type"] != "http.request" or not message["more_body"]

    async def _next(self) -> Event:
        try:
            async with asyncio.timeout(PATIENCE):
                message = await self._receive()
        except TimeoutError:
            raise ConnectError(
                Code.DEADLINE_EXCEEDED, f"nothing of the request came for {PATIENCE:.0f} s"
            ) from None
        if message["type"] == "http.request":
            self._take(message)
        return message


def _too_large() -> ConnectError:
    return ConnectError(
        Code.RESOURCE_EXHAUSTED,
        f"message is larger than the {MAX_MESSAGE_BYTES} bytes that a call may send",
    )


def too_deep(json: bytes | bytearray) -> bool:
    """Whether JSON, which may be broken, is nested so deeply that decoding it ends envd.

    The decoder's own limit does not hold for a value where the schema wants another kind.
    """
    if json.count(b"[") + json.count(b"{") <= MAX_DEPTH:  # as in nearly every message
        return False
    depth = 0
    for found in _JSON_STRUCTURE.finditer(json):
        if found[0] in {b"[", b"{"}:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif found[0] in {b"]", b"}"}:
            depth -= 1
    return False
