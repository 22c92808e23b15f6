"""Connect over HTTP/1.1 with the JSON codec: headers, envelopes, the end of a stream.

Facts: https://connectrpc.com/docs/protocol. This module does no I/O.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import SandboxException
from .json_fields import JsonObject, nested, parse_object, text

if TYPE_CHECKING:
    from collections.abc import Mapping

END_OF_STREAM = 0x02
MAX_MESSAGE_BYTES = 4 << 20
"""Envelopes carry process output in pieces of 32 KiB; anything near this is a broken peer."""
KEEPALIVE_SECONDS = 50

_HEADER = struct.Struct(">BI")


class RpcError(Exception):
    """A call failed with a Connect code; turned into a public exception before it leaves."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Frame:
    """One envelope of a stream."""

    flags: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        """Whether this is the last envelope, which carries the outcome."""
        return bool(self.flags & END_OF_STREAM)


class FrameParser:
    """Cuts the bytes of a streaming body, however they were split, into envelopes."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = max_message_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The envelopes completed by `data`.

        Raises SandboxException for an envelope that is too large or compressed.
        """
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            flags, length = _HEADER.unpack_from(self._buffer, start)
            self._check(flags, length)
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(Frame(flags, bytes(self._buffer[start + _HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    @property
    def incomplete(self) -> bool:
        """Whether a part of an envelope is waiting for its rest."""
        return bool(self._buffer)

    def _check(self, flags: int, length: int) -> None:
        if length > self._limit:
            raise SandboxException(
                f"the stream announced a message of {length} bytes; the limit is {self._limit}"
            )
        if flags & ~END_OF_STREAM:
            raise SandboxException(f"the stream has an envelope with unknown flags {flags:#04x}")


def encode_frame(message: Mapping[str, object], flags: int = 0) -> bytes:
    """One envelope holding the message."""
    payload = encode_message(message)
    return _HEADER.pack(flags, len(payload)) + payload


def encode_message(message: Mapping[str, object]) -> bytes:
    """The message as JSON, as the body of a unary call carries it."""
    return json.dumps(message, separators=(",", ":")).encode()


def decode_message(frame: Frame) -> JsonObject:
    """The message in an envelope. Raises SandboxException when it is not a JSON object."""
    return parse_object(frame.payload, "a message of the stream")


def stream_error(frame: Frame) -> RpcError | None:
    """The error in the last envelope of a stream; None when the stream ended well."""
    if not frame.payload:
        return None
    error = nested(parse_object(frame.payload, "the end of the stream"), "error")
    return RpcError(text(error, "code") or "unknown", text(error, "message")) if error else None


def call_headers(
    *, streaming: bool, timeout: float | None, user: str | None = None
) -> dict[str, str]:
    """Headers of one call. `timeout` in seconds is sent to the server; None sends no limit."""
    headers = {
        "Connect-Protocol-Version": "1",
        "Content-Type": "application/connect+json" if streaming else "application/json",
        "Accept-Encoding": "identity",
    }
    if timeout:
        headers["Connect-Timeout-Ms"] = str(max(1, round(timeout * 1000)))
    if streaming:
        headers["Keepalive-Ping-Interval"] = str(KEEPALIVE_SECONDS)
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:".encode()).decode()
    return headers
