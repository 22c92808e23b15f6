"""Requests: what passes, as which bytes, and what is refused with which status.

`@HOST@` stands for a Host that names a sandbox, in requests to the data proxy with the secret of
our own programs.
"""

from __future__ import annotations

HOST = b"@HOST@\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

FORWARDED: dict[str, tuple[bytes, bytes]] = {
    # What the client sends, and what the server gets.
    "plain": (GET + b"\r\n", GET + b"\r\n"),
    "one empty line before": (b"\r\n" + GET + b"\r\n", GET + b"\r\n"),
    "query": (
        b"GET /a/b?c=d&e=%20f HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /a/b?c=d&e=%20f HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "path is not decoded": (
        b"GET /a%2Fb/../%2e%2e//c;d='\"|\\^`{}<> HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /a%2Fb/../%2e%2e//c;d='\"|\\^`{}<> HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "double slash is a path": (
        b"GET //other.example/x HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET //other.example/x HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "long path": (
        b"GET /" + b"p" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /" + b"p" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "OPTIONS of the server": (
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "DELETE": (
        b"DELETE / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"DELETE / HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "method of an extension": (
        b"VERSION-CONTROL / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"VERSION-CONTROL / HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "method nobody knows": (
        b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
    ),
    "HTTP/1.0 becomes 1.1": (b"GET / HTTP/1.0\r\n" + HOST + b"\r\n", GET + b"\r\n"),
    "spelling and order of fields stay": (
        GET + b"x-B: 1\r\nX-a: 2\r\nx-b: 3\r\n\r\n",
        GET + b"x-B: 1\r\nX-a: 2\r\nx-b: 3\r\n\r\n",
    ),
    "no space behind the colon": (GET + b"X:y\r\n\r\n", GET + b"X: y\r\n\r\n"),
    "blanks around a value": (GET + b"X: \t y z \t\r\n\r\n", GET + b"X: y z\r\n\r\n"),
    "empty value": (GET + b"X:\r\nY: \r\n\r\n", GET + b"X: \r\nY: \r\n\r\n"),
    "bytes above ASCII in a value": (GET + b"X: \xc3\xa9\xff\r\n\r\n",) * 2,
    "every character of a name": (GET + b"!#$%&'*+-.^_`|~09azAZ: y\r\n\r\n",) * 2,
    "colons in a value": (GET + b"X: a: b:c\r\n\r\n",) * 2,
    "cookies twice": (GET + b"Cookie: a=b\r\nCookie: c=d\r\n\r\n",) * 2,
    "authorization passes": (GET + b"Authorization: Basic YTpi\r\n\r\n",) * 2,
    "fields of the hop are dropped": (
        GET
        + b"Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: x\r\n"
        + b"Proxy-Authorization: Basic YTpi\r\nTrailer: X\r\nX: y\r\n\r\n",
        GET + b"X: y\r\n\r\n",
    ),
    "connection: keep-alive is dropped": (
        GET + b"Connection: keep-alive\r\nX: y\r\n\r\n",
        GET + b"X: y\r\n\r\n",
    ),
    "fields named in connection are dropped": (
        GET + b"X-One: 1\r\nConnection: x-one,  X-TWO\r\nX-Two: 2\r\nX-Three: 3\r\n\r\n",
        GET + b"X-Three: 3\r\n\r\n",
    ),
    "what decides is not dropped by connection": (
        POST + b"Connection: content-length, host, authorization\r\nAuthorization: a\r\n"
        b"Content-Length: 1\r\n\r\nx",
        POST + b"Authorization: a\r\nContent-Length: 1\r\n\r\nx",
    ),
    "names of our own programs are dropped": (
        GET + b"X-Emberbox-Signed-Url: a\r\nx-EMBERBOX-anything: b\r\nX: y\r\n\r\n",
        GET + b"X: y\r\n\r\n",
    ),
    "upgrade to h2c is dropped": (
        GET
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
        GET + b"\r\n",
    ),
    "upgrade without connection is dropped": (
        GET + b"Upgrade: websocket\r\n\r\n",
        GET + b"\r\n",
    ),
    "body of known length": (
        POST + b"Content-Length: 5\r\n\r\nhello",
        POST + b"Content-Length: 5\r\n\r\nhello",
    ),
    "length with zeros in front": (
        POST + b"Content-Length: 0005\r\n\r\nhello",
        POST + b"Content-Length: 0005\r\n\r\nhello",
    ),
    "length zero": (POST + b"Content-Length: 0\r\n\r\n",) * 2,
    "body of a GET": (
        GET + b"Content-Length: 2\r\n\r\nhi",
        GET + b"Content-Length: 2\r\n\r\nhi",
    ),
    "chunked": (
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "coding in capitals": (
        POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n\r\n",
    ),
    "chunk sizes are written anew": (
        CHUNKED + b"00005\r\nhello\r\n000\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "capital hexadecimal": (
        CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n",
        CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n",
    ),
    "chunk extensions are dropped": (
        CHUNKED + b'5;a=b;c="d e"\r\nhello\r\n0;x\r\n\r\n',
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "trailers pass": (
        CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
        CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    ),
    "trailers that decide are dropped": (
        CHUNKED + b"0\r\nContent-Length: 5\r\nHost: b\r\nX: y\r\nE2b-Sandbox-Id: i2\r\n"
        b"X-Emberbox-Internal-Secret: s\r\nAuthorization: a\r\n\r\n",
        CHUNKED + b"0\r\nX: y\r\n\r\n",
    ),
    "128 fields": (GET + b"".join(b"X%d: y\r\n" % n for n in range(125)) + b"\r\n",) * 2,
}

REFUSED: dict[str, tuple[bytes, int]] = {
    # What the client sends, and the status that it gets from the proxy. The server gets nothing.
    "length and coding": (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "coding and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", 400),
    "same length twice": (POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 4\r\ncontent-length: 5\r\n\r\n", 400),
    "list of lengths": (POST + b"Content-Length: 4, 4\r\n\r\n", 400),
    "signed length": (POST + b"Content-Length: +4\r\n\r\n", 400),
    "negative length": (POST + b"Content-Length: -4\r\n\r\n", 400),
    "hexadecimal length": (POST + b"Content-Length: 0x4\r\n\r\n", 400),
    "fractional length": (POST + b"Content-Length: 4.0\r\n\r\n", 400),
    "length with underscore": (POST + b"Content-Length: 1_0\r\n\r\n", 400),
    "length with a blank in it": (POST + b"Content-Length: 1 0\r\n\r\n", 400),
    "length in other digits": (POST + b"Content-Length: \xd9\xa4\r\n\r\n", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "endless length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "coding twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "stacked codings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
    "chunked twice in one field": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    "identity coding": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    "quoted coding": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n', 400),
    "coding with a parameter": (POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n", 400),
    "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    "vertical tab in coding": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "form feed behind coding": (POST + b"Transfer-Encoding: chunked\x0c\r\n\r\n", 400),
    "no-break space in coding": (POST + b"Transfer-Encoding: \xa0chunked\r\n\r\n", 400),
    "coding in HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "coding behind a folded line": (POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400),
    "same host twice": (GET + HOST + b"\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no host in HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 400),
    "host with a path": (b"GET / HTTP/1.1\r\nHost: 8000-i1.example.com/x\r\n\r\n", 400),
    "host with a user": (b"GET / HTTP/1.1\r\nHost: a@8000-i1.example.com\r\n\r\n", 400),
    "list of hosts": (b"GET / HTTP/1.1\r\nHost: 8000-i1.example.com, b\r\n\r\n", 400),
    "host with a blank": (b"GET / HTTP/1.1\r\nHost: 8000-i1.example.com b\r\n\r\n", 400),
    "host with a port that is none": (b"GET / HTTP/1.1\r\nHost: a.b:c\r\n\r\n", 400),
    "host above ASCII": (b"GET / HTTP/1.1\r\nHost: 8000-i1.ex\xc3\xa4mple.com\r\n\r\n", 400),
    "two sandbox ids": (
        b"GET / HTTP/1.1\r\nHost: a\r\nE2b-Sandbox-Id: i1\r\ne2b-sandbox-id: i2\r\n\r\n",
        400,
    ),
    "two sandbox ports": (
        b"GET / HTTP/1.1\r\nHost: a\r\nE2b-Sandbox-Port: 1\r\nE2b-Sandbox-Port: 2\r\n\r\n",
        400,
    ),
    "two traffic tokens": (
        GET + b"E2b-Traffic-Access-Token: x\r\nE2b-Traffic-Access-Token: y\r\n\r\n",
        400,
    ),
    "two access tokens": (GET + b"X-Access-Token: x\r\nx-access-token: x\r\n\r\n", 400),
    "two secrets": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Emberbox-Internal-Secret: x\r\n" * 2 + b"\r\n",
        400,
    ),
    "two upgrades": (
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
        400,
    ),
    "unknown expectation": (GET + b"Expect: magic\r\n\r\n", 417),
    "two expectations": (GET + b"Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 400),
    "bare LF behind the request line": (b"GET / HTTP/1.1\n" + HOST + b"\r\n", 400),
    "bare LF between fields": (GET + b"X: y\nZ: q\r\n\r\n", 400),
    "bare LF and a second request": (
        b"GET / HTTP/1.1\r\nHost: a\n\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    "bare CR in a value": (GET + b"X: y\rZ: q\r\n\r\n", 400),
    "bare CR behind a value": (GET + b"X: y\r\r\n\r\n", 400),
    "bare CR in the request line": (b"GET /\r HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "folded line": (GET + b"X: y\r\n z\r\n\r\n", 400),
    "folded line with a tab": (GET + b"X: y\r\n\tz\r\n\r\n", 400),
    "blank line of blanks": (GET + b" \r\n\r\n", 400),
    "field before any name": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "space before the colon": (GET + b"X : y\r\n\r\n", 400),
    "tab before the colon": (GET + b"X\t: y\r\n\r\n", 400),
    "space before the colon of a length": (POST + b"Content-Length : 4\r\n\r\n", 400),
    "empty name": (GET + b": y\r\n\r\n", 400),
    "no colon": (GET + b"Xyz\r\n\r\n", 400),
    "name in brackets": (GET + b"(X): y\r\n\r\n", 400),
    "name above ASCII": (GET + b"X\xc3\xa9: y\r\n\r\n", 400),
    "NUL in a value": (GET + b"X: y\0z\r\n\r\n", 400),
    "control character in a value": (GET + b"X: y\x01z\r\n\r\n", 400),
    "DEL in a value": (GET + b"X: y\x7fz\r\n\r\n", 400),
    "NUL in a name": (GET + b"X\0: y\r\n\r\n", 400),
    "absolute target": (b"GET http://b/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "absolute target of the same host": (
        b"GET http://8000-i1.example.com/ HTTP/1.1\r\n" + HOST + b"\r\n",
        400,
    ),
    "authority target": (b"GET b:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "CONNECT": (b"CONNECT b:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "CONNECT to a path": (b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "star without OPTIONS": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "NUL in the target": (b"GET /a\0b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target above ASCII": ("GET /é HTTP/1.1\r\n".encode() + HOST + b"\r\n", 400),
    "empty target": (b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target without a slash": (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "space at the end of the line": (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "tab as a space": (b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "leading space": (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 400),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\n" + HOST + b"\r\n", 400),
    "http/1.1 in small letters": (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "another protocol": (b"GET / RTSP/1.0\r\n" + HOST + b"\r\n", 400),
    "method in small letters": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "method with a bracket": (b"G{T / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "three empty lines": (b"\r\n\r\n\r\n" + GET + b"\r\n", 400),
    "request line too long": (b"GET /" + b"p" * 25_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "head too long": (GET + b"X: " + b"y" * 33_000 + b"\r\n\r\n", 431),
    "head without an end too long": (GET + b"X: " + b"y" * 70_000, 431),
    "129 fields": (GET + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
    "chunk of negative size": (CHUNKED + b"-1\r\n", 400),
    "chunk size with 0x": (CHUNKED + b"0x1\r\na\r\n", 400),
    "chunk size behind a blank": (CHUNKED + b" 1\r\na\r\n", 400),
    "chunk size with a plus": (CHUNKED + b"+1\r\na\r\n", 400),
    "bare LF behind a chunk size": (CHUNKED + b"1\na\r\n", 400),
    "bare CR behind a chunk size": (CHUNKED + b"1\ra\r\n", 400),
    "chunk longer than it says": (CHUNKED + b"1\r\nab", 400),
    "chunk that ends with LF": (CHUNKED + b"1\r\na\n0\r\n\r\n", 400),
    "chunk size with underscore": (CHUNKED + b"1_0\r\n", 400),
    "empty chunk size": (CHUNKED + b"\r\n", 400),
    "chunk size of an extension only": (CHUNKED + b";a\r\n", 400),
    "LF in a chunk extension": (CHUNKED + b"1;a\nb\r\n", 400),
    "NUL in a chunk extension": (CHUNKED + b"1;\x00\r\n", 400),
    "endless chunk": (CHUNKED + b"1000000000000000\r\n", 400),
    "endless chunk extension": (CHUNKED + b"1;" + b"x" * 5000, 400),
    "trailer without a colon": (CHUNKED + b"0\r\nno colon\r\n\r\n", 400),
    "trailer with a space before the colon": (CHUNKED + b"0\r\nX : y\r\n\r\n", 400),
    "trailer that ends with LF": (CHUNKED + b"0\r\nX: y\n\r\n", 400),
    "folded trailer": (CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n", 400),
    "too many trailers": (CHUNKED + b"0\r\n" + b"X: yyyyyyy\r\n" * 1000 + b"\r\n", 400),
}
