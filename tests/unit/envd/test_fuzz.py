"""Frames and paths that nobody would write: envd answers in the forms of the protocol, and goes
on. EMBERBOX_FUZZ_EXAMPLES says how many there are of each."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.envd.conftest import START, Client, basic, serving
from tests.unit.envd.peers import STREAM, head, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = int(os.environ.get("EMBERBOX_FUZZ_EXAMPLES", "60"))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

UNARY = (
    "process.Process/List",
    "process.Process/SendSignal",
    "process.Process/Update",
    "process.Process/SendInput",
    "filesystem.Filesystem/Stat",
    "filesystem.Filesystem/ListDir",
    "filesystem.Filesystem/MakeDir",
    "filesystem.Filesystem/Move",
    "filesystem.Filesystem/Remove",
    "filesystem.Filesystem/CreateWatcher",
    "filesystem.Filesystem/GetWatcherEvents",
    "filesystem.Filesystem/RemoveWatcher",
)
STREAMS = (START, "process.Process/Connect", "filesystem.Filesystem/WatchDir")
FIELDS = (
    "process", "cmd", "args", "envs", "cwd", "pid", "tag", "selector", "signal", "input", "stdin",
    "pty", "size", "cols", "rows", "path", "depth", "source", "destination", "watcherId",
    "recursive", "event",
)  # fmt: skip

pytestmark = pytest.mark.timeout(120 + 2 * EXAMPLES)


@pytest.fixture(scope="module")
def nobody() -> Iterator[Client]:
    """A client whose calls are made as a user without rights: a fuzzer must find nothing to
    remove or to stop."""
    with serving() as daemon:
        daemon.client.headers |= basic("nobody")
        yield daemon.client
        assert daemon.client.get("/health").status_code == 204


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(["/nowhere", "..", "\ud800", "\0", "SIGNAL_SIGTERM", "1e400"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
"""Shapes like those of messages, with anything at the leaves."""

bodies = st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode())


@given(st.sampled_from(UNARY), bodies, st.sampled_from(["json", "proto", "x", "json; charset=x"]))
@example("process.Process/List", b"[" * 5000, "json")
@fuzzed
def test_a_unary_call_answers_with_a_message_or_an_error(
    nobody: Client, method: str, body: bytes, kind: str
) -> None:
    answer = nobody.post(
        f"/{method}", content=body, headers={"content-type": f"application/{kind}"}
    )
    assert answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code >= 400 and answer.headers.get("content-type") == "application/json":
        assert isinstance(answer.json()["code"], str)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Envelopes whose flags and lengths may lie."""
    pieces = []
    for _ in range(draw(st.integers(0, 3))):
        payload = draw(bodies)
        flags = draw(st.integers(0, 255) | st.just(0))
        length = draw(st.just(len(payload)) | st.integers(0, 2**32 - 1))
        pieces.append(struct.pack(">BI", flags, length) + payload)
    cut = draw(st.none() | st.integers(0, 10))
    return b"".join(pieces)[: None if cut is None else -cut or None]


@given(st.sampled_from(STREAMS), frames())
@example(START, b"\x00\xff\xff\xff\xff")
@example(START, b"\x01\x00\x00\x00\x02{}")
@fuzzed
def test_a_stream_ends_with_its_reason(nobody: Client, method: str, body: bytes) -> None:
    with raw(nobody) as peer:
        authorization = f"Authorization: {nobody.headers['authorization']}"
        length = f"Content-Length: {len(body)}"
        peer.send(head(method, length, authorization, "Connection: close", kind=STREAM) + body)
        answer = peer.receive_all()
    status, _, rest = answer.partition(b"\r\n")
    assert status == b"HTTP/1.1 200 OK", answer[:500]
    assert b"\x02\x00\x00" in rest  # the end of the stream, with an error or without
    assert b"Traceback" not in rest


@given(st.binary(max_size=300) | st.lists(st.sampled_from([
    b"GET ", b"POST ", b"/files", b"/process.Process/Start", b" HTTP/1.1\r\n", b"Host: x\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n", b"\x00",
]), max_size=12).map(b"".join))  # fmt: skip
@fuzzed
def test_bytes_that_are_no_request_end_the_connection_and_nothing_else(
    nobody: Client, said: bytes
) -> None:
    with raw(nobody) as peer:
        peer.send(said)
        peer.socket.shutdown(1)  # nothing more comes: envd need not wait
        try:
            answer = peer.receive_all()
        except ConnectionResetError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:500]
    assert b"Traceback" not in answer


_PARTS = (
    "/", "//", "..", ".", "~", "~root", "tmp", "etc", "proc", "self", "root", "fd", "1", "\0",
    "%2e%2e", "a" * 300, "é", "\ud800", "\n", " ", "\\",
)  # fmt: skip
paths = st.text(max_size=60) | st.lists(st.sampled_from(_PARTS), max_size=8).map("/".join)


@given(paths, st.sampled_from(["GET", "POST"]))
@example("/proc/self/root/root/secret", "GET")
@example("/proc/self/mem", "GET")
@example("~root/x", "POST")
@example("a" * 5000, "POST")
@fuzzed
def test_a_path_of_any_form_is_read_and_written_with_the_rights_of_the_user(
    nobody: Client, path: str, method: str
) -> None:
    query = quote(path, safe="", errors="surrogatepass")
    options = {"content": b"x", "headers": {"content-type": "application/octet-stream"}}
    target = f"/files?username=nobody&path={query}"
    answer = nobody.get(target) if method == "GET" else nobody.post(target, **options)  # type: ignore[arg-type]
    assert answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.json().keys() == {"code", "message"}


@given(paths)
@fuzzed
def test_a_path_names_the_same_file_in_every_call(nobody: Client, path: str) -> None:
    stat = nobody.post(
        "/filesystem.Filesystem/Stat",
        content=json.dumps({"path": path}),
        headers={"content-type": "application/json"},
    )
    assert stat.status_code < 500, (stat.status_code, stat.text)
    if stat.status_code == 200:
        full = stat.json()["entry"]["path"]
        assert full.startswith("/")
        assert "/../" not in f"{full}/"
        again = nobody.call("filesystem.Filesystem/Stat", {"path": full})
        assert again.json()["entry"]["path"] == full
