"""Request and response heads: strict parsing, and what their fields mean for us.

llhttp (through httptools) does the syntax. Each call feeds it exactly one head, so it never sees
a body or a second message. It refuses bare CR and LF, folded lines, white space before a colon,
control characters, both Content-Length and Transfer-Encoding, and repeated or malformed lengths.
What it accepts and we do not (other versions, absolute targets, stacked transfer codings, repeated
routing fields, a missing Host) is refused here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from httptools import (
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from emberbox.proxying.errors import BadMessageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Field = tuple[bytes, bytes, bytes]
"""Name in lower case, name as it was written, value."""

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
"""Two of these in one head could be read differently by us and by the next hop."""

_NO_TOKENS: frozenset[bytes] = frozenset()


class RequestHead:
    """One request's head. Every field is as the client wrote it, values without outer blanks."""

    __slots__ = (
        "_index",
        "chunked",
        "connection",
        "content_length",
        "expects_continue",
        "fields",
        "host",
        "keep_alive",
        "method",
        "minor",
        "target",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, fields: list[Field]) -> None:
        """Raises BadMessageError for what the fields together make impossible."""
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        self._index = index = _index_fields(fields)
        self.host = index.get(b"host", b"")
        if b"host" not in index:
            raise BadMessageError("Host header is missing")
        self.connection = _tokens(index.get(b"connection"))
        self.keep_alive = minor == 1 and b"close" not in self.connection
        self.content_length = _content_length(index)
        self.chunked = _chunked(index, minor)
        self.expects_continue = _expects_continue(index, minor)
        self.upgrade = self._wanted_upgrade()

    def get(self, lower_name: bytes) -> bytes | None:
        """The value of a field, several of one name joined by commas."""
        return self._index.get(lower_name)

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow the head."""
        return self.chunked or self.content_length > 0

    def _wanted_upgrade(self) -> bytes | None:
        """The protocol asked for. h2c is ignored: its requests would escape our routing."""
        value = self._index.get(b"upgrade")
        if value is None or self.minor == 0 or b"upgrade" not in self.connection:
            return None
        return None if b"h2c" in value.lower() else value


class ResponseHead:
    """One response's head."""

    __slots__ = ("chunked", "close", "connection", "content_length", "fields", "reason", "status")

    def __init__(self, status: int, reason: bytes, minor: int, fields: list[Field]) -> None:
        """Raises BadMessageError when its framing cannot be trusted."""
        self.status = status
        self.reason = reason
        self.fields = fields
        index = _index_fields(fields)
        self.connection = _tokens(index.get(b"connection"))
        self.close = b"close" in self.connection or (
            minor == 0 and b"keep-alive" not in self.connection
        )
        self.content_length = int(index[b"content-length"]) if b"content-length" in index else None
        self.chunked = _chunked(index, minor)


class _Collector:
    __slots__ = ("complete", "fields", "reason", "target")

    def __init__(self) -> None:
        self.target = b""
        self.reason = b""
        self.fields: list[Field] = []
        self.complete = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_status(self, part: bytes) -> None:
        self.reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_request_head(data: bytes) -> RequestHead:
    """Parse one head, blank line included. Raises BadMessageError."""
    collector = _Collector()
    parser = HttpRequestParser(collector)
    _feed(parser, collector, data)
    method, target = parser.get_method(), collector.target
    # The request line is compared with what was read from it: this leaves no room for doubled
    # spaces, other protocols and versions.
    line = data[: data.index(b"\r\n")]
    if line == b"%b %b HTTP/1.1" % (method, target):
        minor = 1
    elif line == b"%b %b HTTP/1.0" % (method, target):
        minor = 0
    else:
        raise BadMessageError("malformed request line")
    if not target.startswith(b"/") and not (target == b"*" and method == b"OPTIONS"):
        raise BadMessageError("the request target must be a path")
    if b"#" in target:
        raise BadMessageError("the request target has a fragment")
    return RequestHead(method, target, minor, collector.fields)


def parse_response_head(data: bytes) -> ResponseHead:
    """Parse one head, blank line included. Raises BadMessageError (502)."""
    collector = _Collector()
    parser = HttpResponseParser(collector)
    try:
        _feed(parser, collector, data)
        status, minor = parser.get_status_code(), _minor(data)
        return ResponseHead(status, collector.reason, minor, collector.fields)
    except BadMessageError as error:
        raise BadMessageError(f"malformed response: {error.text}", 502) from error


def _minor(response: bytes) -> int:
    version = response[:9]
    if version not in (b"HTTP/1.1 ", b"HTTP/1.0 "):
        raise BadMessageError("unknown HTTP version")
    return 1 if version == b"HTTP/1.1 " else 0


def _feed(
    parser: HttpRequestParser | HttpResponseParser, collector: _Collector, data: bytes
) -> None:
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass  # a head without a body that asks for (or grants) an upgrade
    except HttpParserError as error:
        raise BadMessageError(str(error) or "malformed head") from error
    if not collector.complete:
        raise BadMessageError("malformed head")


def _index_fields(fields: Iterable[Field]) -> dict[bytes, bytes]:
    index: dict[bytes, bytes] = {}
    for lower, name, value in fields:
        if lower not in index:
            index[lower] = value
        elif lower in _SINGLE:
            raise BadMessageError(f"several {name.decode('latin-1')} headers")
        else:
            index[lower] = index[lower] + b", " + value
    return index


def _tokens(value: bytes | None) -> frozenset[bytes]:
    if value is None:
        return _NO_TOKENS
    return frozenset(token.strip(b" \t") for token in value.lower().split(b","))


def _content_length(index: dict[bytes, bytes]) -> int:
    return int(index.get(b"content-length", b"0"))


def _chunked(index: dict[bytes, bytes], minor: int) -> bool:
    coding = index.get(b"transfer-encoding")
    if coding is None:
        return False
    if coding.lower() != b"chunked" or minor == 0:
        raise BadMessageError("the only Transfer-Encoding is chunked, with HTTP/1.1")
    return True


def _expects_continue(index: dict[bytes, bytes], minor: int) -> bool:
    value = index.get(b"expect")
    if value is None or minor == 0:
        return False
    if value.lower() != b"100-continue":
        raise BadMessageError("the only known expectation is 100-continue", 417)
    return True
