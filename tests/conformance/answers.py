"""Answers: what passes, as which bytes, and what is answered or cut in the place of broken ones."""

from __future__ import annotations

from tests.conformance.requests import GET, HOST

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

_PLAIN = GET + b"\r\n"
_HEAD = b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n"
_OLD = b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"

ANSWERED: dict[str, tuple[bytes, bytes, bytes]] = {
    # What is asked, what the server answers, and what the client gets. Where the client's is whole
    # without it, the server leaves the connection open.
    "known length": (_PLAIN, OK, OK),
    "no reason": (
        _PLAIN,
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    ),
    "no reason and no space": (
        _PLAIN,
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    ),
    "unknown status": (_PLAIN, *(b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n",) * 2),
    "reason above ASCII": (_PLAIN, *(b"HTTP/1.1 200 \xc3\xa9\r\nContent-Length: 0\r\n\r\n",) * 2),
    "fields stay as they are": (
        _PLAIN,
        *(b"HTTP/1.1 200 OK\r\nset-COOKIE: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",) * 2,
    ),
    "fields of the hop are dropped": (
        _PLAIN,
        b"HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nConnection: A\r\nA: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    "names of our own programs are dropped": (
        _PLAIN,
        b"HTTP/1.1 200 OK\r\nX-Emberbox-Anything: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    "blanks around a value": (
        _PLAIN,
        b"HTTP/1.1 200 OK\r\nContent-Length:2 \t\r\n\r\nok",
        OK,
    ),
    "chunked": (
        _PLAIN,
        CHUNKED + b"4\r\npart\r\n3\r\nend\r\n0\r\n\r\n",
        CHUNKED + b"7\r\npartend\r\n0\r\n\r\n",
    ),
    "chunk extensions are dropped": (
        _PLAIN,
        CHUNKED + b"4;a=b\r\npart\r\n0;c\r\n\r\n",
        CHUNKED + b"4\r\npart\r\n0\r\n\r\n",
    ),
    "trailers pass": (_PLAIN, *(CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",) * 2),
    "trailers that decide are dropped": (
        _PLAIN,
        CHUNKED + b"0\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\nX: y\r\n\r\n",
        CHUNKED + b"0\r\nX: y\r\n\r\n",
    ),
    "no body in 204": (_PLAIN, *(b"HTTP/1.1 204 No Content\r\n\r\n",) * 2),
    "no length in 204": (
        _PLAIN,
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    "length but no body in 304": (
        _PLAIN,
        *(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",) * 2,
    ),
    "length but no body for HEAD": (
        _HEAD,
        *(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",) * 2,
    ),
    "no coding and no body for HEAD": (_HEAD, CHUNKED, b"HTTP/1.1 200 OK\r\n\r\n"),
    "error with a body": (_PLAIN, *(b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad",) * 2),
    "informational ones first": (
        _PLAIN,
        *(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,)
        * 2,
    ),
    "no informational ones for HTTP/1.0": (
        _OLD,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    ),
    "HTTP/1.0 answer of known length": (
        _PLAIN,
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK,
    ),
    "chunks are taken apart for HTTP/1.0": (
        _OLD,
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
    ),
    "connection: close of the server is its own": (
        _PLAIN,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        OK,
    ),
    "connection: close of the client is answered": (
        GET + b"Connection: close\r\n\r\n",
        OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    ),
    "bytes behind the answer are no other answer": (_PLAIN, OK + OK, OK),
    "bytes behind 204 are no body": (
        _PLAIN,
        b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nbad",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
}

UNTIL_THE_END: dict[str, tuple[bytes, bytes, bytes]] = {
    # The same, where the server's FIN ends the answer.
    "body until the end becomes chunked": (
        _PLAIN,
        b"HTTP/1.1 200 OK\r\n\r\nall of it",
        CHUNKED + b"9\r\nall of it\r\n0\r\n\r\n",
    ),
    "of HTTP/1.0 too": (
        _PLAIN,
        b"HTTP/1.0 200 OK\r\n\r\nall of it",
        CHUNKED + b"9\r\nall of it\r\n0\r\n\r\n",
    ),
    "stays so for HTTP/1.0": (
        _OLD,
        b"HTTP/1.0 200 OK\r\n\r\nall of it",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it",
    ),
    "empty body until the end": (
        _PLAIN,
        b"HTTP/1.1 200 OK\r\n\r\n",
        CHUNKED + b"0\r\n\r\n",
    ),
}

UNUSABLE: dict[str, bytes] = {
    # Answers that are answered by 502 in their place: none of them begins to pass.
    "nothing": b"",
    "part of a head": b"HTTP/1.1 200 OK\r\nContent-",
    "garbage": b"garbage\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/0.9": b"hello",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "control character in the reason": b"HTTP/1.1 200 O\x01K\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF between fields": b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n",
    "folded line": b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "length and coding": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "stacked codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "switch that nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    ),
    "head too long": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    "129 fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "malformed first chunk": CHUNKED + b"zz\r\n",
}

CUT: dict[str, tuple[bytes, bytes, bytes]] = {
    # The first part of an answer, what the client gets of it, and what breaks it: the client is
    # reset, as all of it cannot come any more.
    "length not reached": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"",
    ),
    "chunk not whole": (CHUNKED + b"8\r\nhalf", CHUNKED + b"4\r\nhalf\r\n", b""),
    "last chunk missing": (CHUNKED + b"4\r\nhalf\r\n", CHUNKED + b"4\r\nhalf\r\n", b""),
    "end of trailers missing": (
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"4\r\nhalf\r\n",
        b"0\r\nX: y\r\n",
    ),
    "malformed later chunk": (
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"4\r\nhalf\r\n",
        b"zz\r\n",
    ),
    "chunk longer than it says": (
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"4\r\nhalf\r\n",
        b"1\r\nab\r\n",
    ),
}
