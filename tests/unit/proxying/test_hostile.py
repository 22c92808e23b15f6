"""Heads that two servers could read differently go no further."""

from __future__ import annotations

import pytest

from emberbox.proxying.limits import Limits
from tests.unit.proxying.peers import GET, Bench

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"

REFUSED = {
    "length and coding": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4",
    "same length twice": POST + b"Content-Length: 4\r\nContent-Length: 4",
    "two lengths": POST + b"Content-Length: 4\r\ncontent-length: 5",
    "list of lengths": POST + b"Content-Length: 4, 4",
    "signed length": POST + b"Content-Length: +4",
    "negative length": POST + b"Content-Length: -4",
    "hexadecimal length": POST + b"Content-Length: 0x4",
    "length with underscore": POST + b"Content-Length: 1_0",
    "empty length": POST + b"Content-Length:",
    "endless length": POST + b"Content-Length: 99999999999999999999",
    "coding twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "stacked codings": POST + b"Transfer-Encoding: gzip, chunked",
    "identity coding": POST + b"Transfer-Encoding: identity",
    "unknown coding": POST + b"Transfer-Encoding: xchunked",
    "vertical tab in coding": POST + b"Transfer-Encoding: \x0bchunked",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
    "same host twice": b"GET / HTTP/1.1\r\nHost: a\r\nhost: a",
    "no host": b"GET / HTTP/1.1",
    "two sandbox ids": b"GET / HTTP/1.1\r\nHost: a\r\nE2b-Sandbox-Id: i1\r\ne2b-sandbox-id: i2",
    "two sandbox ports": b"GET / HTTP/1.1\r\nHost: a\r\nE2b-Sandbox-Port: 1\r\nE2b-Sandbox-Port: 2",
    "two traffic tokens": (
        b"GET / HTTP/1.1\r\nHost: a\r\nE2b-Traffic-Access-Token: x\r\nE2b-Traffic-Access-Token: y"
    ),
    "two secrets": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Emberbox-Internal-Secret: x\r\n"
        b"X-Emberbox-Internal-Secret: y"
    ),
    "bare LF after the request line": b"GET / HTTP/1.1\nHost: a",
    "bare LF between fields": b"GET / HTTP/1.1\r\nHost: a\nX: y",
    "bare LF and a second request": b"GET / HTTP/1.1\r\nHost: a\n\nGET /2 HTTP/1.1\r\nHost: a",
    "bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: q",
    "folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z",
    "folded line with a tab": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz",
    "field before any name": b"GET / HTTP/1.1\r\n Host: a",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : a",
    "empty name": b"GET / HTTP/1.1\r\nHost: a\r\n: y",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nXyz",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z",
    "control character": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\x01z",
    "NUL in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y",
    "absolute target": b"GET http://b/ HTTP/1.1\r\nHost: a",
    "authority target": b"GET b:80 HTTP/1.1\r\nHost: a",
    "CONNECT": b"CONNECT b:80 HTTP/1.1\r\nHost: a",
    "star without OPTIONS": b"GET * HTTP/1.1\r\nHost: a",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: a",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: a",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a",
    "tab as a space": b"GET\t/ HTTP/1.1\r\nHost: a",
    "leading space": b" GET / HTTP/1.1\r\nHost: a",
    "raw UTF-8 target": "GET /é HTTP/1.1\r\nHost: a".encode(),
    "HTTP/0.9": b"GET /",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a",
    "HTTP/1.10": b"GET / HTTP/1.10\r\nHost: a",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM",
    "another protocol": b"GET / RTSP/1.0\r\nHost: a",
    "unknown method": b"get / HTTP/1.1\r\nHost: a",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "three empty lines": b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a",
}


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED.keys())
async def test_refused(bench: Bench, head: bytes) -> None:
    backend = await bench.echo()
    client = await bench.connect(await bench.proxied(backend))
    await client.send(head + b"\r\n\r\n0\r\n\r\n" + GET)
    answer = await client.read_message()
    assert answer.status == 400
    assert answer.get("connection") == b"close"
    assert await client.ended() in ("eof", "reset")
    assert backend.connections == 0, "nothing after a malformed head is looked at"


async def test_unknown_expectation(bench: Bench) -> None:
    client = await bench.connect(await bench.proxied(await bench.echo()))
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n")
    assert (await client.read_message()).status == 417


@pytest.mark.parametrize("whole", [True, False])
async def test_oversized_head(bench: Bench, whole: bool) -> None:
    limits = Limits(request_head=1000)
    client = await bench.connect(await bench.proxied(await bench.echo(), limits=limits))
    end = b"\r\n\r\n" if whole else b""
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000 + end)
    assert (await client.read_message()).status == 431
    assert await client.ended() in ("eof", "reset")


async def test_head_of_the_size_of_the_limit(bench: Bench) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    limits = Limits(request_head=1000)
    client = await bench.connect(await bench.proxied(await bench.echo(), limits=limits))
    await client.send(start + b"y" * (1000 - len(start)) + b"\r\n\r\n")
    assert (await client.read_message()).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1\na\r\n",
        b"1\ra\r\n",
        b"1\r\nab",
        b"1\r\na\n0\r\n\r\n",
        b"1_0\r\n",
        b"\r\n",
        b"1;a\nb\r\n",
        b"1;\x00\r\n",
        b"1000000000000000\r\n",
        b"1;" + b"x" * 5000,
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\n" + b"X: yyyyyyy\r\n" * 1000 + b"\r\n",
    ],
)
async def test_malformed_chunks(bench: Bench, body: bytes) -> None:
    backend = await bench.echo()
    client = await bench.connect(await bench.proxied(backend))
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert (await client.read_message()).status == 400
    assert await client.ended() in ("eof", "reset")
    assert backend.seen == []


async def test_head_may_come_byte_by_byte(bench: Bench) -> None:
    client = await bench.connect(await bench.proxied(await bench.echo()))
    for index in range(len(GET)):
        await client.send(GET[index : index + 1])
    assert (await client.read_message()).status == 200
