"""Request and response heads: strict parsing, and what their fields mean for us.

What two servers could read differently goes no further: both Content-Length and Transfer-Encoding,
repeated or malformed lengths, stacked transfer codings, absolute targets, repeated routing fields,
a missing Host. `fields` has the syntax. `make fuzz` compares what is accepted here with llhttp.
"""

from __future__ import annotations

import re
from functools import lru_cache

from emberbox.proxying import fields
from emberbox.proxying.errors import BadMessageError

LONGEST_REQUEST_LINE = 24 * 1024

_REQUEST_LINE = re.compile(rb"(?:\r\n)?([A-Z][A-Z0-9_-]*+) (/[!\"$-~]*+|\*) HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*+))?\r\n")
_HOST = re.compile(rb"(?:[a-z0-9._~-]*|\[[0-9a-f:.]+\])(?::[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")

_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields of one hop (RFC 9110, 7.6.1): ours to write."""
_INTERNAL = b"x-emberbox-"
"""What our own programs tell one another; no client and no sandbox may."""
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"upgrade", b""})
_NEVER_NOMINATED = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"e2b-sandbox-id",
        b"e2b-sandbox-port",
        b"e2b-traffic-access-token",
        b"expect",
        b"host",
        b"x-access-token",
    }
)
"""A client must not be able to have these removed by naming them in Connection."""
_SINGLE = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"e2b-sandbox-id",
        b"e2b-sandbox-port",
        b"e2b-traffic-access-token",
        b"x-access-token",
        b"x-emberbox-internal-secret",
    }
)
_DECISIVE = fields.searcher(*_HOP | _SINGLE, b"x-emberbox-[^:]*+")
_REMEMBERED = 2048
_LONGEST_REMEMBERED = 2048
"""Clients send the same fields again and again, and servers answer with the same heads. Their bytes
decide all that is read from them, so they are read once: at most so many of at most so many bytes
are remembered of either kind."""


class _Fields:
    """What a block of fields says. Shared by all heads that have the same: never changed."""

    __slots__ = ("_lower", "chunked", "connection", "content_length", "found", "passed", "text")

    def __init__(self, block: bytes, minor: bytes) -> None:
        """Raises BadMessageError for what the fields together make impossible."""
        self.text = text = fields.canonical(block)
        self._lower = text.lower()
        self.found = found = fields.index(_DECISIVE.findall(self._lower), _SINGLE)
        self.connection = fields.tokens(found.get(b"connection"))
        self.content_length = _content_length(found)
        """None when there is none."""
        self.chunked = _chunked(found, minor)
        self.passed = self._end_to_end()
        """The fields for the next hop, each with its CRLF and one before them all."""

    def get(self, lower_name: bytes) -> bytes | None:
        """The value of a field, several of one name joined by commas."""
        return fields.value_of(self.text, self._lower, lower_name)

    def _end_to_end(self) -> bytes:
        text = self.text
        for name in self.found:
            if name in _HOP:
                text = fields.without(text, name + b":")
            elif name.startswith(_INTERNAL):
                text = fields.without(text, _INTERNAL)
        if not self.connection <= _PLAIN_CONNECTION:
            for name in self.connection - _NEVER_NOMINATED:
                text = fields.without(text, name + b":")
        return text


class RequestFields(_Fields):
    """What the fields of a request say.

    `routing` are Host, in lower case, and the two E2b-Sandbox headers; `upgrade` is the protocol
    that the client wants to switch to.
    """

    __slots__ = (
        "expects_continue",
        "has_body",
        "keep_alive",
        "minor",
        "plain",
        "routing",
        "upgrade",
    )

    def __init__(self, block: bytes, minor: bytes) -> None:
        super().__init__(block, minor)
        self.minor = minor
        self.has_body = self.chunked or bool(self.content_length)
        self.keep_alive = minor == b"1" and b"close" not in self.connection
        self.expects_continue = _expects_continue(self.found, minor)
        self.routing = (
            _host(self.found),
            self.get(b"e2b-sandbox-id"),
            self.get(b"e2b-sandbox-port"),
        )
        self.upgrade = self._wanted_upgrade()
        self.plain = not self.has_body and self.upgrade is None
        """Nothing but these fields goes to the next hop."""

    def is_short(self, most: int) -> bool:
        """Whether the body surely comes, and is no more than `most` bytes.

        A client that waits for 100 may or may not send its own.
        """
        small = (self.content_length or 0) <= most
        return small and not self.chunked and not self.expects_continue

    def _wanted_upgrade(self) -> bytes | None:
        """h2c is ignored: its requests would escape our routing."""
        value = self.found.get(b"upgrade")
        if value is None or b"upgrade" not in self.connection or b"h2c" in value:
            return None
        return None if self.minor == b"0" else self.get(b"upgrade")


class RequestHead:
    """One request's head."""

    __slots__ = ("fields", "method", "target")

    def __init__(self, method: bytes, target: bytes, fields: RequestFields) -> None:
        self.method = method
        self.target = target
        self.fields = fields

    def get(self, lower_name: bytes) -> bytes | None:
        """The value of a field, several of one name joined by commas."""
        return self.fields.get(lower_name)


class ResponseHead(_Fields):
    """One response's head. Shared like the fields of requests.

    `line` is without its CRLF; `plain` is the whole head with nothing of ours added.
    """

    __slots__ = ("close", "line", "plain", "status")

    def __init__(self, status: bytes, reason: bytes, minor: bytes, block: bytes) -> None:
        super().__init__(block, minor)
        self.status = int(status)
        self.line = b"HTTP/1.1 %b %b" % (status, reason)
        if self.status == 204 and self.content_length is not None:
            self.passed = fields.without(self.passed, b"content-length:")
        self.plain = b"%b%b\r\n" % (self.line, self.passed)
        asked = self.connection
        self.close = b"close" in asked if minor == b"1" else b"keep-alive" not in asked

    def may_have_body(self, method: bytes) -> bool:
        """Whether the answer to a request of this method has one, if only an empty one."""
        return method != b"HEAD" and self.status not in (204, 304)


def parse_request_head(data: bytes) -> RequestHead:
    """Parse one head, its empty line included, and perhaps one before it (RFC 9112, 2.2).

    Raises BadMessageError.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise _bad_request_line(data)
    end = line.end()
    method, target, minor = line.groups()
    if end > LONGEST_REQUEST_LINE:
        raise BadMessageError("the request line is too long", 414)
    if method == b"CONNECT" or (target == b"*" and method != b"OPTIONS"):
        raise BadMessageError("the request target must be a path")
    block = data[end - 2 : -2]
    read = _remembered_fields if len(block) <= _LONGEST_REMEMBERED else RequestFields
    return RequestHead(method, target, read(block, minor))


_remembered_fields = lru_cache(maxsize=_REMEMBERED)(RequestFields)


def _bad_request_line(data: bytes) -> BadMessageError:
    """Say what most often is the matter."""
    words = data.partition(b"\r\n")[0].split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return BadMessageError("malformed request line")
    return BadMessageError("the request target must be a path without a fragment")


def parse_response_head(data: bytes) -> ResponseHead:
    """Parse one head, its empty line included. Raises BadMessageError (502)."""
    read = _remembered_response if len(data) <= _LONGEST_REMEMBERED else _read_response
    return read(data)


def _read_response(data: bytes) -> ResponseHead:
    line = _STATUS_LINE.match(data)
    if line is None:
        raise BadMessageError("malformed response: its first line", 502)
    minor, status, reason = line.groups(b"")
    try:
        return ResponseHead(status, reason, minor, data[line.end() - 2 : -2])
    except BadMessageError as error:
        raise BadMessageError(f"malformed response: {error.text}", 502) from error


_remembered_response = lru_cache(maxsize=_REMEMBERED)(_read_response)


def _host(found: dict[bytes, bytes]) -> bytes:
    host = found.get(b"host")
    if host is None:
        raise BadMessageError("Host header is missing")
    if _HOST.fullmatch(host) is None:
        raise BadMessageError("malformed Host header")
    return host


def _content_length(found: dict[bytes, bytes]) -> int | None:
    text = found.get(b"content-length")
    if text is None:
        return None
    if _LENGTH.fullmatch(text) is None:
        raise BadMessageError("malformed Content-Length")
    return int(text)


def _chunked(found: dict[bytes, bytes], minor: bytes) -> bool:
    coding = found.get(b"transfer-encoding")
    if coding is None:
        return False
    if coding != b"chunked" or minor == b"0":
        raise BadMessageError("the only Transfer-Encoding is chunked, with HTTP/1.1")
    if b"content-length" in found:
        raise BadMessageError("both Content-Length and Transfer-Encoding")
    return True


def _expects_continue(found: dict[bytes, bytes], minor: bytes) -> bool:
    value = found.get(b"expect")
    if value is None or minor == b"0":
        return False
    if value != b"100-continue":
        raise BadMessageError("the only known expectation is 100-continue", 417)
    return True
