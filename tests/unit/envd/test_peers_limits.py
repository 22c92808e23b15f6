"""Limits in time and number, with the limits made small."""

from __future__ import annotations

import errno
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from emberbox.envd import connection, listener, processes, request_body
from tests.stack import wait_until
from tests.unit.envd.conftest import START, Client, Running, envelope, output, start_request
from tests.unit.envd.peers import (
    PATIENCE,
    STREAM,
    Raw,
    bytes_written,
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
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(60)

CONNECT = "process.Process/Connect"
LIST = "process.Process/List"


@pytest.fixture
def peer(client: Client) -> Iterator[Raw]:
    with raw(client) as found:
        yield found


@pytest.fixture
def short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)


# Time


@pytest.mark.usefixtures("short_head")
@pytest.mark.parametrize("begun", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_head_that_does_not_come(client: Client, begun: bytes) -> None:
    with raw(client) as peer:
        peer.send(begun)
        assert peer.receive_all() == b""


@pytest.mark.usefixtures("short_head")
def test_second_head_that_does_not_come(client: Client) -> None:
    with raw(client) as peer:
        peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        peer.receive_until(b"\r\n\r\n")
        peer.send(b"GET /hea")
        assert peer.receive_all().count(b"HTTP/1.1") == 1


@pytest.mark.usefixtures("short_head")
def test_stream_and_idle_connection_outlive_the_time_for_a_head(client: Client) -> None:
    with raw(client) as idle, following(client, start_request("/bin/cat", stdin=True)) as (peer, _):
        idle.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.receive_until(b"\r\n\r\n")
        with raw(client) as silent:
            assert silent.receive_all() == b""  # its time, and more than theirs, is over
        pid = client.call(LIST).json()["processes"][0]["pid"]
        client.call("process.Process/SendInput", to_stdin(pid, b"later"))
        peer.receive_until(b"bGF0ZXI=")
        idle.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: idle.receive_until(b"HTTP/1.1").count(b"HTTP/1.1") == 1, PATIENCE)


@pytest.mark.parametrize(
    ("method", "kind"), [(START, STREAM), (LIST, "application/json")], ids=["stream", "unary"]
)
@pytest.mark.parametrize("part", [b"", b"\0\0\0"])
def test_body_that_does_not_come(
    peer: Raw, monkeypatch: pytest.MonkeyPatch, method: str, kind: str, part: bytes
) -> None:
    monkeypatch.setattr(request_body, "PATIENCE", 0.2)
    peer.send(head(method, "Content-Length: 100", kind=kind) + part)
    assert error_in(peer.receive_until(b"nothing of the request"))["code"] == "deadline_exceeded"


def test_client_stream_may_be_silent(
    client: Client, peer: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "PATIENCE", 0.2)
    with client.open_stream(START, start_request("/bin/cat", stdin=True)) as stream:
        pid = stream.next().event["start"]["pid"]
        begin = envelope({"start": {"process": {"pid": pid}}})
        peer.send(head("process.Process/StreamInput", "Transfer-Encoding: chunked") + chunk(begin))
        with raw(client) as waiting:  # for as long as another call is given
            waiting.send(head(LIST, "Content-Length: 2", kind="application/json"))
            waiting.receive_until(b"nothing of the request")
        data = envelope({"data": {"input": to_stdin(pid, b"late")["input"]}})
        peer.send(chunk(data[:7]))
        peer.send(chunk(data[7:]) + b"0\r\n\r\n")
        peer.receive_until(b"\x02\x00\x00\x00\x02{}")
        client.call("process.Process/CloseStdin", {"process": {"pid": pid}})
        assert output(stream.rest()) == b"late"


def test_rest_of_a_refused_request_is_read_for_a_while(
    client: Client, peer: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.5)
    peer.send(head("process.Process/Nope", "Transfer-Encoding: chunked"))
    peer.send(chunk(b"x" * 300_000))
    assert b"unknown method" in peer.receive_all()


def test_connection_is_kept_when_the_rest_came(peer: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.3)
    nope = head("process.Process/Nope", "Content-Length: 6", kind="application/json")
    peer.send(nope + b"abc")
    peer.receive_until(b"unknown method")
    peer.send(b"def")
    peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    peer.receive_until(b"HTTP/1.1 204")


# Followers


def test_follower_that_stops_is_left_behind_when_another_reads(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STALL_PATIENCE", 0.3)
    total = 40_000_000
    script = f"read go; head -c {total} /dev/zero; read go"
    with client.open_stream(START, start_request("/bin/sh", "-c", script, stdin=True)) as reads:
        pid = reads.next().event["start"]["pid"]
        with following(client, {"process": {"pid": pid}}, CONNECT) as (stopped, _):
            client.call("process.Process/SendInput", to_stdin(pid, b"go\n"))
            got = 0
            while got < total:
                got += len(output([reads.next()]))
            error = error_in(stopped.receive_until(b'"error"'))
            assert error["code"] == "resource_exhausted"
            assert "connect again" in error["message"]
        kill(client, pid)
        reads.rest()


def test_followers_that_take_turns_lose_nothing(client: Client) -> None:
    total = 8_000_000
    script = f"read go; head -c {total} /dev/zero"
    with client.open_stream(START, start_request("/bin/sh", "-c", script, stdin=True)) as one:
        pid = one.next().event["start"]["pid"]
        with client.open_stream(CONNECT, {"process": {"pid": pid}}) as other:
            other.next()
            client.call("process.Process/SendInput", to_stdin(pid, b"go\n"))
            got = {one: 0, other: 0}
            while min(got.values()) < total:
                behind = min(got, key=lambda stream: got[stream])
                got[behind] += len(output([behind.next()]))
            for stream in got:
                assert [list(m.body) for m in stream.rest()] == [["event"], []]
        assert set(got.values()) == {total}


def test_followers_that_all_stop_stop_the_process(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STALL_PATIENCE", 0.1)
    begin = start_request("/bin/sh", "-c", "read go; exec yes", stdin=True)
    with (
        following(client, begin) as (first, pid),
        following(client, {"process": {"pid": pid}}, CONNECT),
    ):
        client.call("process.Process/SendInput", to_stdin(pid, b"go\n"))
        stuck = wait_until_blocked(pid)
        assert b"error" not in first.receive_until(b"eQp5")
        # It reads again, and the other does not.
        wait_until(lambda: read_on(first) and bytes_written(pid) > stuck + 2_000_000, PATIENCE)


def read_on(peer: Raw) -> bool:
    for _ in range(50):
        assert peer.socket.recv(65536)
    return True


# Number


def test_streams_are_limited(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_STREAMS", 2)
    with ExitStack() as stack:
        pids = [
            stack.enter_context(following(client, start_request("/bin/sleep", "600")))[1]
            for _ in range(2)
        ]
        with client.open_stream(CONNECT, {"process": {"pid": pids[0]}}) as refused:
            error = refused.rest()[0].body["error"]
        assert error == {
            "code": "resource_exhausted",
            "message": "2 streams of processes are open: close some of them first",
        }
        assert len(client.call(LIST).json()["processes"]) == 2
    wait_until(lambda: output(client.run("/bin/echo", "again")) == b"again\n", PATIENCE)


def test_start_that_cannot_be_followed_starts_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MAX_STREAMS", 0)
    assert "error" in client.run("/bin/sleep", "600")[0].body
    assert client.call(LIST).json() == {}


def test_processes_are_limited(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_PROCESSES", 1)
    with following(client, start_request("/bin/sleep", "600")) as _:
        error = client.run("/bin/true")[0].body["error"]
        assert error == {
            "code": "resource_exhausted",
            "message": "1 processes run: end some of them first",
        }
    assert output(client.run("/bin/echo", "again")) == b"again\n"


def test_connections_are_limited(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/health").status_code == 204
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 1)
    with raw(client) as refused:
        assert refused.receive_all() == b""
    assert client.get("/health").status_code == 204


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_what_the_system_has_no_room_for(
    client: Client, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, "no room")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    error = client.run("/bin/true")[0].body["error"]
    assert error["code"] == "resource_exhausted"
    assert "cannot start '/bin/true': no room" in error["message"]


# After the end


@pytest.fixture
def ended(client: Client) -> int:
    pid: int = client.run("/bin/sh", "-c", "exit 3", stdin=True)[0].event["start"]["pid"]
    return pid


@pytest.mark.parametrize("method", ["SendInput", "CloseStdin", "SendSignal", "Update"])
def test_what_ended_is_not_found(client: Client, ended: int, method: str) -> None:
    answer = client.call(f"process.Process/{method}", to_stdin(ended, b"x") | {"signal": 9})
    message = f"process with pid {ended} not found"
    assert (answer.status_code, answer.json()) == (404, {"code": "not_found", "message": message})


def test_stream_input_to_what_ended(client: Client, ended: int) -> None:
    body = envelope({"start": {"process": {"pid": ended}}})
    answer = client.post(
        "/process.Process/StreamInput", content=body, headers={"content-type": STREAM}
    )
    assert error_in(answer.content)["code"] == "not_found"


def test_exit_is_remembered_for_late_clients(client: Client, ended: int) -> None:
    for _ in range(2):
        with client.open_stream(CONNECT, {"process": {"pid": ended}}) as stream:
            start, end, last = stream.rest()
        assert start.event == {"start": {"pid": ended}}
        assert end.event["end"]["exitCode"] == 3
        assert (last.flags, last.body) == (2, {})


def test_exits_are_forgotten(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_EXITS_REMEMBERED", 0.2)
    pid = running.client.run("/bin/true")[0].event["start"]["pid"]

    def forgotten() -> bool:
        with running.client.open_stream(CONNECT, {"process": {"pid": pid}}) as stream:
            return "error" in stream.rest()[0].body

    wait_until(forgotten, PATIENCE)


def test_few_exits_are_remembered(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_EXITS_REMEMBERED", 2)
    pids = [running.client.run("/bin/true")[0].event["start"]["pid"] for _ in range(4)]
    known = []
    for pid in pids:
        with running.client.open_stream(CONNECT, {"process": {"pid": pid}}) as stream:
            known.append("event" in stream.rest()[0].body)
    assert known == [False, False, True, True]


def test_multibyte_output_is_passed_on_in_whatever_pieces(client: Client) -> None:
    text = "é€😀" * 20_000
    script = "printf x; yes é€😀 | tr -d '\\n' | head -c 180000"
    assert output(client.run("/bin/bash", "-c", script)).decode() == "x" + text


@pytest.mark.parametrize("interval", ["", "0", "-1", "1.5", "9" * 400, "x"])
def test_keepalive_interval_that_makes_no_sense(client: Client, interval: str) -> None:
    header = f"Keepalive-Ping-Interval: {interval}"
    request = start_request("/bin/echo", "well")
    with following(client, request, START, header) as (peer, _):
        peer.receive_until(b"\x02\x00\x00\x00\x02{}")
