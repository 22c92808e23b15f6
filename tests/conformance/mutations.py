"""Requests and answers with something wrong: bytes that a proxy must neither crash on nor read
otherwise than the server behind it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

SANDBOXES = 6
"""Of requests; those of broken answers come on top."""

_TOKENS: Sequence[bytes] = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"\x0b",
        b"\x7f",
        b"\xa0",
        b"\xff",
    ),
    *(b"\r\n\r\n", b"\n\n", b"\r\n ", b"0\r\n\r\n", b"5\r\nhello\r\n", b"0", b"-1", b"+5", b"0x5"),
    *(b"ffffffffffffffff", b"99999999999999999999", b"chunked", b"CHUNKED", b"gzip, "),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:5\r\n"),
    *(b"Content-Length : 5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: +5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding: chunked, gzip\r\n"),
    *(b"Transfer-Encoding : chunked\r\n", b"X: y\r\n Transfer-Encoding: chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive, Host\r\n", b"Connection: Upgrade\r\n"),
    *(
        b"Upgrade: h2c\r\n",
        b"Upgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"TE: trailers\r\n",
    ),
    *(
        b"E2b-Sandbox-Id: i2\r\n",
        b"E2b-Sandbox-Port: 8000\r\n",
        b"X-Emberbox-Internal-Secret: x\r\n",
    ),
    *(
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"HTTP/2.0",
        b"GET ",
        b"POST ",
        b"CONNECT ",
        b"http://",
        b"/",
        b"*",
    ),
)

_FIELDS = [token for token in _TOKENS if token.endswith(b"\r\n") and b":" in token]


def request_of(sandbox: int, rng: random.Random) -> bytes:
    """A good request, or several."""
    head = b" /%d?from=fuzz HTTP/1.1\r\nHost: 8000-i%d.example.com\r\nX: y\r\n" % (sandbox, sandbox)
    length = rng.choice((0, 5, 300, 5000))
    chunks = b"".join(b"%x\r\n%b\r\n" % (n, b"c" * n) for n in (1, 5, length) if n)
    return rng.choice(
        (
            b"GET" + head + b"\r\n",
            b"HEAD" + head + b"\r\n",
            b"GET" + head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
            b"POST" + head + b"Content-Length: %d\r\n\r\n" % length + b"b" * length,
            b"POST" + head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
            b"PUT" + head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nT: x\r\n\r\n",
            b"PUT" + head + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
            b"GET" + head + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes",
            b"GET" + head + b"Connection: close\r\n\r\n",
        )
    )


def requests(rng: random.Random) -> bytes:
    """What one client sends: good requests for one or several sandboxes, then spoilt."""
    count = rng.choice((1, 1, 1, 2, 3))
    data = b"".join(request_of(rng.randint(1, SANDBOXES), rng) for _ in range(count))
    return _spoilt(data, rng)


def answer(rng: random.Random) -> bytes:
    """A spoilt answer."""
    good = rng.choice(
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: x\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes",
        )
    )
    return _spoilt(good, rng)


def in_pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes in a few parts, as they might come from a network."""
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 0, 1, 2, 5))))
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


def _spoilt(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        data = rng.choice(_WAYS)(data, rng)
    return data


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.choice(_TOKENS) + data[at:]


def _insert_field(data: bytes, rng: random.Random) -> bytes:
    """Where a field may begin."""
    lines = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    at = len(b"\r\n".join(lines[: rng.randint(1, len(lines))])) + 2
    return data[:at] + rng.choice(_FIELDS) + data[at:]


def _replace(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.choice(_TOKENS) + data[at + rng.randint(1, 8) :]


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _delete(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 20)) :]


def _double(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    part = data[at : at + rng.choice((1, 2, 20, 200))]
    return data[:at] + part + data[at:]


def _shuffle_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\r\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\r\n".join(lines)


def _cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _bloat(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.choice((b"A", b" ", b"\r\n", b"X: y\r\n", b"0")) * 2000 + data[at:]


_WAYS = (
    *(_insert_field, _insert_field, _insert_field, _insert, _insert, _replace, _replace),
    *(_flip, _flip, _delete, _delete, _double, _shuffle_lines, _cut_off, _bloat),
)


def _place(data: bytes, rng: random.Random) -> int:
    """Most often in the head, where most is decided."""
    head = max(data.find(b"\r\n\r\n"), 0)
    return rng.randint(0, head + 4) if rng.random() < 0.7 else rng.randint(0, len(data))
