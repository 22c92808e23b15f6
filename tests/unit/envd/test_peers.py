"""Peers that misbehave, against envd as a program of its own: it answers, frees and forgets."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import struct
import sys
import termios
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx2
import pytest

from tests.stack import wait_until
from tests.unit.envd.conftest import START, Client, envelope, output, start_request
from tests.unit.envd.daemons import daemon, open_descriptors, resident_bytes
from tests.unit.envd.peers import (
    PATIENCE,
    STREAM,
    chunk,
    error_in,
    following,
    head,
    kill,
    raw,
    to_stdin,
    wait_until_blocked,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)

MIB = 1024 * 1024
PIPE_BYTES = 65536
LIST = "process.Process/List"
SEND = "process.Process/SendInput"
INPUT = "process.Process/StreamInput"


@pytest.fixture(scope="module")
def envd() -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    with daemon() as found:
        found[1].run("/bin/true")
        yield found


@pytest.fixture
def program(envd: tuple[subprocess.Popen[bytes], Client]) -> subprocess.Popen[bytes]:
    return envd[0]


@pytest.fixture
def client(
    envd: tuple[subprocess.Popen[bytes], Client], program: subprocess.Popen[bytes]
) -> Iterator[Client]:
    """Whatever a peer did, others are served and nothing of it stays."""
    before = open_descriptors(program)
    with Client(base_url=envd[1].base_url, timeout=30) as of_test:
        yield of_test
    assert output(envd[1].run("/bin/echo", "well")) == b"well\n"
    wait_until(lambda: open_descriptors(program) <= before, PATIENCE)


WHOLE = envelope(start_request("/bin/true"))


@pytest.mark.parametrize("part", [b"", WHOLE[:3], WHOLE[:5], WHOLE[:-1]])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("method", [START, INPUT])
def test_request_that_is_cut_off(client: Client, part: bytes, method: str, chunked: bool) -> None:
    with raw(client) as peer:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(WHOLE)}"
        peer.send(head(method, framing) + (chunk(part) if chunked and part else part))


@pytest.mark.parametrize("part", [WHOLE[:3], WHOLE[:-1]])
@pytest.mark.parametrize("method", [START, INPUT])
def test_stream_that_ends_in_a_message(client: Client, part: bytes, method: str) -> None:
    answer = client.post(f"/{method}", content=part, headers={"content-type": STREAM})
    error = error_in(answer.content)
    assert error == {
        "code": "invalid_argument",
        "message": "the request ends in the middle of a message",
    }


@pytest.mark.parametrize("method", [START, INPUT])
def test_message_of_gigabytes_is_refused_by_its_length(client: Client, method: str) -> None:
    with raw(client) as peer:
        peer.send(head(method, "Transfer-Encoding: chunked") + chunk(b"\0\xff\xff\xff\xff"))
        assert error_in(peer.receive_until(b'"error"'))["code"] == "resource_exhausted"


@pytest.mark.parametrize("method", [START, INPUT])
def test_compressed_message_is_refused(client: Client, method: str) -> None:
    body = struct.pack(">BI", 1, 4) + b"\x1f\x8b\x08\x00"
    headers = {"content-type": STREAM, "connect-content-encoding": "gzip"}
    error = error_in(client.post(f"/{method}", content=body, headers=headers).content)
    assert error == {"code": "unimplemented", "message": "compressed messages are not taken"}


def test_compressed_unary_request_is_refused(client: Client) -> None:
    answer = client.call(LIST, {}, content_encoding="gzip")
    assert (answer.status_code, answer.json()["code"]) == (501, "unimplemented")


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"process":7}',
        b"[" * 1_000_000,
        b'{"process":' + b"[" * 1_000_000,
        b'{"process":{"pid":["\\"]"' + b",[" * 1_000_000,
    ],
    ids=range(7),
)
def test_nonsense_is_not_decoded(client: Client, payload: bytes) -> None:
    body = struct.pack(">BI", 0, len(payload)) + payload
    answer = client.post(f"/{START}", content=body, headers={"content-type": STREAM})
    assert error_in(answer.content)["code"] == "invalid_argument"
    unary = client.post(f"/{SEND}", content=payload, headers={"content-type": "application/json"})
    assert (unary.status_code, unary.json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/connect+x", ""])
def test_stream_of_another_content_type(client: Client, kind: str) -> None:
    answer = client.post(f"/{START}", content=WHOLE, headers={"content-type": kind})
    assert error_in(answer.content)["code"] == "invalid_argument"


@pytest.mark.parametrize("kind", [STREAM, "application/json"])
def test_header_that_is_not_ascii(client: Client, kind: str) -> None:
    with raw(client) as peer:
        bad = head(START, "Content-Length: 0", "X: there", kind=kind).replace(b"there", b"\xff")
        peer.send(bad)
        error = error_in(peer.receive_until(b"is not ASCII"))
        assert error["code"] == "invalid_argument"


def test_what_is_not_http(client: Client) -> None:
    with raw(client) as peer:
        peer.send(b"\x16\x03\x01\x02\x00 no\r\n\r\n")
        assert peer.receive_all().startswith(b"HTTP/1.1 400 ")


def test_requests_without_end_behind_a_stream(client: Client) -> None:
    with following(client, start_request("/bin/sleep", "600")) as (peer, _):
        peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        assert b"HTTP/1.1 204" not in peer.receive_all()


def test_head_without_end_is_refused(client: Client) -> None:
    with raw(client) as peer:
        peer.send(b"GET /health HTTP/1.1\r\nX: ")
        for _ in range(5):
            peer.send(b"y" * 16384)
        assert peer.receive_until(b"larger than").startswith(b"HTTP/1.1 431 ")


def test_unary_body_without_end_is_refused(
    client: Client, program: subprocess.Popen[bytes]
) -> None:
    before = resident_bytes(program)
    with raw(client) as peer:
        peer.send(head(SEND, "Transfer-Encoding: chunked", kind="application/json"))
        piece = chunk(b" " * MIB)
        for _ in range(33):
            peer.send(piece)
        answer = peer.receive_until(b"that a call may send")
        assert answer.startswith(b"HTTP/1.1 429 ")
    assert resident_bytes(program) < before + 150 * MIB


def test_bodies_of_all_calls_together_are_bounded(
    client: Client, program: subprocess.Popen[bytes]
) -> None:
    before = resident_bytes(program)
    with ExitStack() as stack:
        peers = [stack.enter_context(raw(client)) for _ in range(3)]
        for peer in peers:
            peer.send(head(SEND, f"Content-Length: {40 * MIB}", kind="application/json"))
            peer.send(b" " * (24 * MIB))
        answer = peers[-1].receive_until(b"one by one")
        assert error_in(answer)["code"] == "resource_exhausted"
        assert resident_bytes(program) < before + 200 * MIB
    big = client.call("process.Process/List", {"unknown": "x" * (24 * MIB)})
    assert big.status_code == 200, "what the others held was given back"


def test_readers_that_stop_cost_little(client: Client, program: subprocess.Popen[bytes]) -> None:
    """Each stops its own process; nobody else is disturbed."""
    before = resident_bytes(program)
    with ExitStack() as stack:
        pids = [
            stack.enter_context(following(client, start_request("/usr/bin/yes")))[1]
            for _ in range(40)
        ]
        wait_until_blocked(*pids)
        grown = resident_bytes(program) - before
        assert grown < 40 * MIB, f"{grown} bytes for 40 readers"
        assert output(client.run("/bin/echo", "others")) == b"others\n"


def test_200_streams_at_once(client: Client, program: subprocess.Popen[bytes]) -> None:
    """All run at the same time: each waits for a line that comes when the last has begun."""
    before = resident_bytes(program)
    script = "read line; echo $line; head -c 50000 /dev/zero; echo end"
    request = start_request("/bin/sh", "-c", script, stdin=True)
    unlimited = httpx2.Limits(max_connections=None)
    with ExitStack() as stack:
        many = stack.enter_context(Client(base_url=client.base_url, timeout=60, limits=unlimited))
        streams = [stack.enter_context(many.open_stream(START, request)) for _ in range(200)]
        pids = [stream.next().event["start"]["pid"] for stream in streams]
        assert len(many.call(LIST).json()["processes"]) == 200
        for number, pid in enumerate(pids):
            line = base64.b64encode(f"{number}\n".encode()).decode()
            many.call(SEND, {"process": {"pid": pid}, "input": {"stdin": line}})
        for number, stream in enumerate(streams):
            found = output(stream.rest())
            assert found == f"{number}\n".encode() + bytes(50_000) + b"end\n"
        assert resident_bytes(program) - before < 80 * MIB


@pytest.mark.parametrize("behind", [b"", head(LIST, "Content-Length: 2") + b"{}"])
def test_client_that_vanishes(
    client: Client, program: subprocess.Popen[bytes], behind: bytes
) -> None:
    """The process lives on and the stream is given up, also behind a request that waits."""
    with following(client, start_request("/bin/sleep", "600")) as (peer, pid):
        client.call(LIST)
        before = open_descriptors(program)
        peer.send(behind)
        peer.close()
        wait_until(lambda: open_descriptors(program) < before, PATIENCE)
        with client.open_stream("process.Process/Connect", {"process": {"pid": pid}}) as again:
            assert again.next().event == {"start": {"pid": pid}}


def test_client_that_vanishes_while_nobody_reads_its_input(client: Client) -> None:
    """The next writer does not wait behind it."""
    request = start_request("/bin/sleep", "600", stdin=True)
    with ExitStack() as stack, client.open_stream(START, request) as stream:
        pid = stream.next().event["start"]["pid"]
        body = json.dumps(to_stdin(pid, b"x" * 1_000_000)).encode()
        with raw(client) as peer:
            fields = f"Content-Length: {len(body)}"
            peer.send(head(SEND, fields, kind="application/json") + body)
            stdin = stack.enter_context(Path(f"/proc/{pid}/fd/0").open("rb", buffering=0))
            wait_until(lambda: unread(stdin) == PIPE_BYTES, PATIENCE)
        os.set_blocking(stdin.fileno(), False)
        wait_until(lambda: stdin.read(MIB) is None, PATIENCE)
        assert client.call(SEND, to_stdin(pid, b"z")).status_code == 200
        assert stdin.read(MIB) == b"z"
        kill(client, pid)
        stream.rest()


def unread(pipe: IO[bytes]) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"1234"), sys.byteorder)
