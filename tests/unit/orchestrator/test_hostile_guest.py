"""A guest that puts its own program in envd's place: the host is told lies, and stays well."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emberbox.orchestrator import envd_client
from emberbox.orchestrator.data_proxy.bridging import Bridges
from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.http_answers import MAX_ANSWER, Answer
from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.telemetry import guest as telemetry
from emberbox.proxying.dialing import WhenRefused
from emberbox.proxying.resolving import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SLOT = NodeNetwork.of_node("unit-test").slot(1)
IDENTITY = Identity("iabc", "t", "e-1", "token of the sandbox", {"SECRET": "value"})
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@asynccontextmanager
async def guest(say: Callable[[asyncio.StreamWriter], object]) -> AsyncIterator[int]:
    """A server that says what it likes, whatever it is asked; its port."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        await reader.read(65536)  # what is not read resets the connection when it is closed
        say(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in open_ones:
            writer.transport.abort()
        closed = (writer.wait_closed() for writer in open_ones)
        await asyncio.gather(*closed, return_exceptions=True)


@asynccontextmanager
async def envd_is(
    say: Callable[[asyncio.StreamWriter], object], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """What the orchestrator reaches in SLOT."""
    async with guest(say) as port:

        async def connect(_slot: object, _port: int) -> socket.socket:
            return socket.create_connection(("127.0.0.1", port))

        monkeypatch.setattr(envd_client, "connect", connect)
        yield


def once(data: bytes) -> Callable[[asyncio.StreamWriter], object]:
    """Say this and hang up."""

    def say(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return say


def for_ever(piece: bytes, head: bytes = b"") -> Callable[[asyncio.StreamWriter], object]:
    """Go on and on."""
    tasks = set()

    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        try:
            while True:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            return

    def say(writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(pour(writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return say


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(lambda _writer: None, id="silent"),
        pytest.param(for_ever(b"x" * 1000), id="endless head"),
        pytest.param(
            for_ever(b"x: y\r\n" * 200, b"HTTP/1.1 204 No Content\r\n"), id="endless headers"
        ),
        pytest.param(for_ever(b"x" * 1000, b"HTTP/1.1 400 No\r\n\r\n"), id="endless body"),
        pytest.param(once(b""), id="hangs up"),
        pytest.param(once(b"HTTP/1.1 204"), id="half a line"),
        pytest.param(once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"), id="short body"),
        pytest.param(once(b"HTTP/1.1 999 ?\r\n\r\n"), id="no status"),
        pytest.param(once(b"SSH-2.0-OpenSSH\r\n\r\n"), id="another protocol"),
    ],
)
async def test_nonsense_is_no_answer_and_is_bounded(
    say: Callable[[asyncio.StreamWriter], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with envd_is(say, monkeypatch):
        with pytest.raises(GuestUnreachable) as raised:
            await envd_client.call(SLOT, "/x", b"", "text/plain", 0.5)
        assert len(str(raised.value)) < 500
        with pytest.raises(GuestUnreachable) as raised:
            await envd_client.initialize(SLOT, IDENTITY, 0.5)
        assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        ("0.6.13", "0.6.13"),
        ("0.6.13-rc.1+b", "0.6.13-rc.1+b"),
        ("", ""),
        ("9" * 33, ""),
        ("1.0\x1b[31m", ""),
        ("1.0 <script>", ""),
        ("é", ""),
    ],
)
async def test_a_version_is_kept_only_when_it_looks_like_one(
    monkeypatch: pytest.MonkeyPatch, version: str, kept: str
) -> None:
    head = f"HTTP/1.1 204 No Content\r\nX-Envd-Version: {version}\r\n\r\n".encode("latin-1")
    async with envd_is(once(head), monkeypatch):
        assert await envd_client.initialize(SLOT, IDENTITY, 5) == kept


async def test_of_a_refusal_little_is_repeated_and_no_controls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = b"\x1b]0;owned\x07no" + b"x" * 60_000
    async with envd_is(once(b"HTTP/1.1 403 Forbidden\r\n\r\n" + body), monkeypatch):
        with pytest.raises(GuestUnreachable) as raised:
            await envd_client.initialize(SLOT, IDENTITY, 5)
    told = str(raised.value)
    assert told.startswith("envd refused /init: 403 \N{REPLACEMENT CHARACTER}]0;owned")
    assert "\x1b" not in told
    assert len(told) < 400


PARTS = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"HTTP/1.1 ", b"200 OK", b"204", b"\r\n", b"\r\n\r\n", b": ", b"\x00"]),
    st.sampled_from([b"Content-Length: ", b"99999999999999999999", b"-1", b"Connection: close"]),
    st.sampled_from([b"Transfer-Encoding: chunked\r\n\r\n", b"X-Envd-Version: 1", b"{}", b"\xff"]),
)
SAID = st.lists(PARTS, max_size=12).map(b"".join)


@given(SAID)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(NO_CONTENT)
def test_whatever_is_said_is_an_answer_or_an_error_of_ours(said: bytes) -> None:
    async def ask() -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            async with envd_is(once(said), monkeypatch):
                try:
                    answer = await envd_client.call(SLOT, "/x", b"", "text/plain", 5)
                except GuestUnreachable as error:
                    assert len(str(error)) < 2000  # noqa: PT017 - either way is right
                else:
                    assert isinstance(answer, Answer)
                    assert len(answer.body) <= MAX_ANSWER

    asyncio.run(ask())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([10**400, -1, "cpu_count", "NaN"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = (
    "cpu_count", "cpu_busy", "cpu_ticks", "mem_used", "mem_total", "mem_cache", "disk_used",
    "disk_total",
)  # fmt: skip
ROW = st.tuples(
    JSON | st.integers(0, 9),
    JSON | st.floats(),
    JSON | st.just("info"),
    JSON | st.sampled_from(["orchestrator", "process"]),
    JSON | st.text(),
    JSON | st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
).map(list)
REPORTS = st.fixed_dictionaries(
    {
        "metrics": JSON | st.fixed_dictionaries(dict.fromkeys(FIELDS, JSON | st.integers(1, 9))),
        "stream": JSON | st.just("ab"),
        "entries": JSON | st.lists(ROW, max_size=3),
    }
)


def dumped(value: object) -> bytes:
    """As a guest may write it: also what is no JSON, such as NaN."""
    return json.dumps(value).encode(errors="surrogatepass")


@given(st.binary(max_size=200) | (JSON | REPORTS).map(dumped))
@settings(max_examples=100, deadline=None)
@example(b"[" * 60_000)
@example(b'{"metrics":{"cpu_count":1e400}}')
def test_whatever_a_guest_reports_is_checked(body: bytes) -> None:
    try:
        report = telemetry.parse(body)
    except GuestUnreachable as error:
        assert len(str(error)) < 200  # noqa: PT017 - either way is right
        return
    assert 1 <= report.metrics.cpu_count <= 65535
    for entry in report.log_entries(now=1000.0):
        assert entry.at <= 1000.0
        assert entry.logger != "orchestrator"
        assert "\x1b" not in entry.message


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue",
        b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"bridged":"true"}',
        b'HTTP/1.1 500 No\r\nContent-Length: 16\r\n\r\n{"bridged":true}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x00" * 70_000,
        b"",
    ],
)
async def test_a_bridge_is_there_only_when_envd_says_so(said: bytes) -> None:
    async with guest(once(said)) as port:
        target = Target(
            address="127.0.0.1",
            port=8000,
            sandbox_id="iabc",
            sandbox_port=8000,
            pool_key=("127.0.0.1", 8000),
            execution_id="e-1",
        )
        bridges = Bridges(envd_port=port)
        assert await bridges.connect_refused(target) is WhenRefused.GIVE_UP
