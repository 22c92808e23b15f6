"""Heads as we write them: one canonical form, whatever form they came in.

End-to-end fields keep their order, their spelling and their values, Host included. Fields of one
hop (RFC 9110, 7.6.1) are ours to write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emberbox.proxying.heads import Field, RequestHead, ResponseHead

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
_INTERNAL = b"x-emberbox-"
_MASKED = frozenset({b"host", b"x-forwarded-host"})
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"upgrade", b""})


def request_bytes(
    head: RequestHead,
    *,
    extra: bytes = b"",
    host: bytes | None = None,
    upgrade: bool = False,
    keep_alive: bool = False,
) -> bytes:
    """The head for the upstream. `extra` are whole lines that we add, each with its CRLF; `host`
    masks the client's Host, which is told as X-Forwarded-Host then (protocol reference, 4.5)."""
    lines = [b"%b %b HTTP/1.1\r\n" % (head.method, head.target)]
    fields = head.fields
    if host is not None:
        lines += (_line(b"Host", host), _line(b"X-Forwarded-Host", head.host))
        fields = [field for field in fields if field[0] not in _MASKED]
    lines += _end_to_end(fields, head.connection)
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if upgrade and head.upgrade is not None:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
    elif not keep_alive:
        lines.append(b"Connection: close\r\n")
    lines += (extra, b"\r\n")
    return b"".join(lines)


def response_bytes(head: ResponseHead, *, chunked: bool, close: bool) -> bytes:
    """The head for the client."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    lines += _end_to_end(head.fields, head.connection, no_length=chunked or head.status == 204)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def interim_bytes(head: ResponseHead) -> bytes:
    """A 1xx head for the client; for 101 with the protocol that was switched to."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    lines += _end_to_end(head.fields, head.connection, no_length=True)
    if head.status == 101:
        lines.append(b"Connection: Upgrade\r\n")
        lines += [_line(name, value) for lower, name, value in head.fields if lower == b"upgrade"]
    lines.append(b"\r\n")
    return b"".join(lines)


def _end_to_end(
    fields: list[Field], connection: frozenset[bytes], *, no_length: bool = False
) -> list[bytes]:
    dropped = _HOP
    if not connection <= _PLAIN_CONNECTION:
        dropped = _HOP | (connection - _NEVER_NOMINATED)
    if no_length:
        dropped = dropped | {b"content-length"}
    return [
        _line(name, value)
        for lower, name, value in fields
        if lower not in dropped and not lower.startswith(_INTERNAL)
    ]


def _line(name: bytes, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name, value)
