"""Heads as we write them: one canonical form, whatever form they came in.

End-to-end fields keep their order, their spelling and their values, Host included. Fields of one
hop are ours to write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.proxying.fields import without

if TYPE_CHECKING:
    from emberbox.proxying.heads import RequestFields, RequestHead, ResponseHead

_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CLOSE = b"Connection: close\r\n"


def request_bytes(
    head: RequestHead,
    extra: bytes,
    keep_alive: bool,
    *,
    upgrade: bytes | None = None,
    host: bytes | None = None,
) -> bytes:
    """The head for the upstream. `extra` are whole lines that we add, each with its CRLF;
    `upgrade` is the protocol that it may switch to; `host` masks the client's Host, which is told
    as X-Forwarded-Host then (protocol reference, 4.5)."""
    fields = head.fields
    passed = fields.passed if host is None else _masked(fields, host)
    framing = _CHUNKED if fields.chunked else b""
    if upgrade is not None:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade
    elif not keep_alive:
        framing += _CLOSE
    rest = (passed, framing, extra, b"\r\n")
    return b"".join((head.method, b" ", head.target, b" HTTP/1.1", *rest))


def _masked(fields: RequestFields, host: bytes) -> bytes:
    others = without(without(fields.passed, b"host:"), b"x-forwarded-host:")
    return b"\r\nHost: %b\r\nX-Forwarded-Host: %b%b" % (host, fields.get(b"host") or b"", others)


def response_bytes(head: ResponseHead, *, chunked: bool, close: bool) -> bytes:
    """The head for the client."""
    passed = head.passed
    if chunked and head.content_length is not None:
        passed = without(passed, b"content-length:")
    framing = _CHUNKED if chunked else b""
    if close:
        framing += _CLOSE
    return b"".join((head.line, passed, framing, b"\r\n"))


def interim_bytes(head: ResponseHead) -> bytes:
    """A 1xx head for the client; for 101 with the protocol that was switched to."""
    passed = without(head.passed, b"content-length:")
    switch = b""
    if head.status == 101:
        upgrade = head.get(b"upgrade")
        switch = b"Connection: Upgrade\r\n"
        if upgrade is not None:
            switch += b"Upgrade: %b\r\n" % upgrade
    return b"".join((head.line, passed, switch, b"\r\n"))
