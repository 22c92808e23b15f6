"""Input, terminals, several clients, and slow ones."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import socket
import time
from typing import Any

import httpx2
import pytest

from tests.unit.envd.conftest import (
    OTHER,
    START,
    Client,
    Running,
    basic,
    envelope,
    output,
    start_request,
)
from tests.unit.envd.peers import bytes_written, to_stdin, wait_until_blocked

CONNECT = "process.Process/Connect"
SEND = "process.Process/SendInput"


def test_stdin_until_closed(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/cat", stdin=True)) as stream:
        pid = stream.next().event["start"]["pid"]
        assert client.call(SEND, to_stdin(pid, b"one ")).json() == {}
        assert client.call(SEND, to_stdin(pid, b"two")).json() == {}
        closed = client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
        assert closed.status_code == 200
        assert output(stream.rest()) == b"one two"


def test_stdin_may_be_closed_twice(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/sleep", "600", stdin=True)) as stream:
        pid = stream.next().event["start"]["pid"]
        for _ in range(2):
            closed = client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
            assert closed.status_code == 200
        refused = client.call(SEND, to_stdin(pid, b"x"))
        assert refused.json()["message"] == "stdin is not enabled or closed"
        client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        stream.rest()


def test_stdin_is_enabled_when_nothing_is_said(client: Client) -> None:
    request = start_request("/bin/cat")
    del request["stdin"]
    with client.open_stream(START, request) as stream:
        pid = stream.next().event["start"]["pid"]
        assert client.call(SEND, to_stdin(pid, b"x")).status_code == 200
        client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
        assert output(stream.rest()) == b"x"


def test_large_input_is_written_whole(client: Client) -> None:
    data = os.urandom(3_000_000)
    with client.open_stream(START, start_request("/usr/bin/sha256sum", stdin=True)) as stream:
        pid = stream.next().event["start"]["pid"]
        assert client.call(SEND, to_stdin(pid, data)).status_code == 200
        client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
        assert output(stream.rest()).startswith(hashlib.sha256(data).hexdigest().encode())


def test_input_that_nobody_reads_ends_with_the_time_limit(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/sleep", "600", stdin=True)) as stream:
        pid = stream.next().event["start"]["pid"]
        late = client.call(SEND, to_stdin(pid, b"x" * 1_000_000), connect_timeout_ms="200")
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        stream.rest()


@pytest.mark.parametrize(
    ("request_body", "input_kind", "message"),
    [
        (start_request("/bin/sleep", "600"), "stdin", "stdin is not enabled or closed"),
        (start_request("/bin/sleep", "600"), "pty", "the process has no pty"),
        (
            start_request("/bin/sleep", "600", pty={}),
            "stdin",
            "the process has a pty: send its input as pty",
        ),
    ],
)
def test_input_of_the_wrong_kind(
    client: Client, request_body: dict[str, Any], input_kind: str, message: str
) -> None:
    with client.open_stream(START, request_body) as stream:
        pid = stream.next().event["start"]["pid"]
        refused = client.call(SEND, to_stdin(pid, b"x", input_kind))
        assert refused.status_code == 500
        assert refused.json() == {"code": "internal", "message": message}
        client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        stream.rest()


def test_stream_input_writes_in_order(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/cat", stdin=True)) as stream:
        pid = stream.next().event["start"]["pid"]
        body = [
            envelope({"start": {"process": {"pid": pid}}}),
            envelope({"keepalive": {}}),
            *(envelope({"data": {"input": to_stdin(pid, b)["input"]}}) for b in (b"a", b"b", b"c")),
        ]
        answer = client.post(
            "/process.Process/StreamInput",
            content=iter(body),
            headers={"content-type": "application/connect+json"},
        )
        assert answer.content == envelope({}) + b"\x02\x00\x00\x00\x02{}"
        client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
        assert output(stream.rest()) == b"abc"


def test_stream_input_must_begin_with_start(client: Client) -> None:
    body = envelope({"data": {"input": {"stdin": "YQ=="}}})
    headers = {"content-type": "application/connect+json"}
    answer = client.post("/process.Process/StreamInput", content=body, headers=headers)
    assert json.loads(answer.content[5:])["error"]["code"] == "invalid_argument"


def test_terminal(client: Client) -> None:
    request = start_request(
        "/bin/sh",
        "-c",
        "tty; stty size; read x; echo $x; stty size",
        pty={"size": {"cols": 100, "rows": 30}},
    )
    with client.open_stream(START, request, **basic(OTHER.pw_name)) as stream:
        pid = stream.next().event["start"]["pid"]
        shown = b""
        while b"30 100" not in shown:
            shown += output([stream.next()], "pty")
        resized = client.call(
            "process.Process/Update",
            {"process": {"pid": pid}, "pty": {"size": {"cols": 40, "rows": 20}}},
        )
        assert resized.json() == {}
        client.call(SEND, to_stdin(pid, b"typed\n", "pty"))
        messages = stream.rest()
    shown += output(messages, "pty")
    assert b"/dev/pts/" in shown
    assert b"typed\r\ntyped\r\n20 40\r\n" in shown
    assert messages[-2].event["end"] == {"exited": True, "status": "exit status 0"}


def test_terminal_only_calls(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/sleep", "600")) as stream:
        pid = stream.next().event["start"]["pid"]
        size = {"process": {"pid": pid}, "pty": {"size": {"cols": 1, "rows": 1}}}
        refused = client.call("process.Process/Update", size)
        assert (refused.status_code, refused.json()["message"]) == (500, "the process has no pty")
        client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        stream.rest()
    with client.open_stream(START, start_request("/bin/sh", pty={})) as stream:
        pid = stream.next().event["start"]["pid"]
        refused = client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
        assert refused.json()["code"] == "invalid_argument"
        client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        assert stream.rest()[-2].event["end"]["status"] == "signal: killed"


def test_every_client_gets_all_later_output(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/cat", stdin=True)) as first:
        pid = first.next().event["start"]["pid"]
        with client.open_stream(CONNECT, {"process": {"pid": pid}}) as second:
            assert second.next().event["start"]["pid"] == pid
            client.call(SEND, to_stdin(pid, b"both"))
            client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
            for stream in (first, second):
                messages = stream.rest()
                assert output(messages) == b"both"
                assert messages[-2].event["end"]["exited"]


def test_time_limit_of_connect_leaves_the_process(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/sleep", "600")) as first:
        pid = first.next().event["start"]["pid"]
        limited = client.open_stream(CONNECT, {"process": {"pid": pid}}, connect_timeout_ms="200")
        with limited as second:
            assert second.rest()[-1].body["error"]["code"] == "deadline_exceeded"
        assert client.call("process.Process/List").json()["processes"]
        client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        first.rest()


def test_slow_reader_stops_the_process_and_loses_nothing(client: Client) -> None:
    total = 50_000_000
    with client.open_stream(
        START, start_request("/usr/bin/head", "-c", str(total), "/dev/zero")
    ) as s:
        pid = s.next().event["start"]["pid"]
        # Socket buffers on both sides take some MB; a daemon without limit would take all.
        assert wait_until_blocked(pid) < total * 0.8
        assert len(output(s.rest())) == total


def test_process_goes_on_when_its_slow_reader_leaves(client: Client) -> None:
    with client.open_stream(START, start_request("/usr/bin/yes")) as stream:
        pid = stream.next().event["start"]["pid"]
        stuck = wait_until_blocked(pid)
    deadline = time.monotonic() + 20
    while bytes_written(pid) < stuck + 50_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})


def test_vanished_client_ends_its_call(running: Running) -> None:
    """Also one that says nothing: the handler must not wait for the next output."""
    body = envelope(start_request("/bin/sleep", "600"))
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        head = (
            f"POST /{START} HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        raw.sendall(head.encode() + body)
        answer = b""
        while b'"start"' not in answer:
            answer += raw.recv(65536)
        (process,) = list(running.envd.processes)
        assert len(process._listeners) == 1
    deadline = time.monotonic() + 10
    while process._listeners:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (
        running.client.call(
            "process.Process/SendSignal", {"process": {"pid": process.pid}, "signal": 9}
        ).json()
        == {}
    )


def test_many_at_once(running: Running) -> None:
    def run(number: int) -> bytes:
        with Client(base_url=running.url, timeout=30) as client:
            return output(client.run("/bin/sh", "-c", f"echo {number}; echo {number}"))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for number, found in enumerate(pool.map(run, range(48))):
            assert found == f"{number}\n{number}\n".encode()
    assert running.client.call("process.Process/List").json() == {}


def test_idle_connection_is_reused(client: Client) -> None:
    transport = httpx2.HTTPTransport()
    with Client(base_url=client.base_url, transport=transport) as one:
        for _ in range(3):
            assert one.get("/health").status_code == 204
        connections = transport._pool.connections
        assert len(connections) == 1
