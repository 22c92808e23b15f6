"""Bodies on the wire: taking the payload out of one framing and putting it into another.

Readers hold no payload: what is fed comes back at once, without a copy where it can be avoided.
"""

from __future__ import annotations

import re
from typing import Protocol

from emberbox.proxying.errors import BadMessageError

Piece = bytes | memoryview

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*\r\n")
_LONGEST_LINE = 4096
_LONGEST_TRAILERS = 8192
_UNSAFE_TRAILERS = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-access-token",
    }
)


class BodyReader(Protocol):
    """Takes a body's payload out of its framing."""

    done: bool
    """The last byte of the body was fed."""
    rest: bytes
    """What followed the body in the data fed last; meaningful when `done`."""
    trailers: bytes
    """Trailer lines, each with its CRLF; meaningful when `done`."""

    def feed(self, data: bytes) -> list[Piece]:
        """Return the payload in `data`. Raises BadMessageError."""


class LengthReader:
    """A body of a known number of bytes."""

    __slots__ = ("_remaining", "done", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.done = length == 0
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> list[Piece]:
        """Return `data` up to the end of the body."""
        remaining = self._remaining - len(data)
        if remaining > 0:
            self._remaining = remaining
            return [data]
        end = self._remaining
        self._remaining = 0
        self.done = True
        if remaining == 0:
            return [data]
        self.rest = data[end:]
        return [data[:end]] if end else []


class UntilCloseReader:
    """A response body that ends with its connection."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> list[Piece]:
        """Everything is payload."""
        return [data]


class ChunkedReader:
    """A chunked body. Chunk extensions are dropped, trailers kept but for the unsafe ones.

    Unsafe are fields that decide about framing, routing or authority: they were looked at in
    the head and must not change behind our back.
    """

    __slots__ = ("_expect", "_line", "_remaining", "_trailers_size", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._expect = self._size_line
        self._line = b""
        self._remaining = 0
        self._trailers_size = 0
        self.done = False
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> list[Piece]:
        """Return the chunks' payload in `data`. Raises BadMessageError."""
        pieces: list[Piece] = []
        view = memoryview(data)
        position, size = 0, len(data)
        while position < size and not self.done:
            if self._remaining:
                end = min(position + self._remaining, size)
                pieces.append(view[position:end])
                self._remaining -= end - position
                position = end
                continue
            line, position = self._take_line(data, position)
            if line is not None:
                self._expect(line)
        if self.done:
            self.rest = data[position:]
        return pieces

    def _take_line(self, data: bytes, start: int) -> tuple[bytes | None, int]:
        newline = data.find(b"\n", start, start + _LONGEST_LINE)
        end = newline + 1 if newline >= 0 else len(data)
        if len(self._line) + end - start > _LONGEST_LINE:
            raise BadMessageError("a line of the chunked body is too long")
        line = self._line + data[start:end]
        if newline < 0:
            if self._expect == self._chunk_end and line != b"\r":
                self._chunk_end(line)
            self._line = line
            return None, end
        self._line = b""
        return line, end

    def _size_line(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadMessageError("malformed chunk size")
        self._remaining = int(match.group(1), 16)
        self._expect = self._chunk_end if self._remaining else self._trailer_line

    def _chunk_end(self, line: bytes) -> None:
        if line != b"\r\n":
            raise BadMessageError("a chunk does not end where its size says")
        self._expect = self._size_line

    def _trailer_line(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        match = _TRAILER_LINE.fullmatch(line)
        self._trailers_size += len(line)
        if match is None or self._trailers_size > _LONGEST_TRAILERS:
            raise BadMessageError("malformed or oversized trailers")
        name = match.group(1).lower()
        if name not in _UNSAFE_TRAILERS and not name.startswith((b"x-emberbox-", b"e2b-")):
            self.trailers += line


def framed(pieces: list[Piece], trailers: bytes | None) -> list[Piece]:
    """Frame payload as one chunk, and with `trailers` end the body behind it."""
    out: list[Piece] = []
    if pieces:
        out += (b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n")
    if trailers is not None:
        out.append(b"0\r\n%b\r\n" % trailers)
    return out
