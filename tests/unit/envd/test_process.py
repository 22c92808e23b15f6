"""Start, List, SendSignal and the forms of errors, as seen on the wire."""

from __future__ import annotations

import base64
import json
import os
import struct
import time
from pathlib import Path

import pytest

from tests.unit.envd.conftest import (
    OTHER,
    START,
    Client,
    Message,
    Running,
    basic,
    envelope,
    output,
    start_request,
)


def error_of(messages: list[Message]) -> dict[str, str]:
    assert [m.flags for m in messages] == [2], messages
    found: dict[str, str] = messages[0].body["error"]
    return found


def test_stream_is_start_output_end_and_end_of_stream(client: Client) -> None:
    messages = client.run("/bin/sh", "-c", "echo out; echo err >&2")
    assert messages[0].event["start"]["pid"] > 1
    assert output(messages) == b"out\n"
    assert output(messages, "stderr") == b"err\n"
    assert messages[-2].event == {"end": {"exited": True, "status": "exit status 0"}}
    assert messages[-1] == Message(2, {})


def test_end_comes_in_one_piece_with_the_end_of_the_stream(client: Client) -> None:
    headers = {"content-type": "application/connect+json"}
    request = envelope(start_request("/bin/true"))
    with client.stream("POST", f"/{START}", content=request, headers=headers) as answer:
        pieces = list(answer.iter_raw())
    assert b'"start"' in pieces[0]
    assert b'"end"' in pieces[-1]
    assert pieces[-1].endswith(b"\x02\x00\x00\x00\x02{}")


def test_exit_code_is_told_with_an_error(client: Client) -> None:
    end = client.run("/bin/sh", "-c", "exit 3")[-2].event["end"]
    assert end == {"exitCode": 3, "exited": True, "status": "exit status 3", "error": end["status"]}


def test_own_signal_ends_with_its_name(client: Client) -> None:
    end = client.run("/bin/sh", "-c", "kill -TERM $$")[-2].event["end"]
    assert end == {"exitCode": -1, "status": "signal: terminated", "error": "signal: terminated"}


def test_output_comes_in_pieces_of_at_most_32_kib(client: Client) -> None:
    messages = client.run("/usr/bin/head", "-c", "1000000", "/dev/zero")
    sizes = [
        len(base64.b64decode(m.event["data"]["stdout"]))
        for m in messages[1:-1]
        if "data" in m.event
    ]
    assert max(sizes) <= 32 * 1024
    assert sum(sizes) == 1_000_000


def test_runs_as_the_named_user_in_its_home(client: Client) -> None:
    messages = client.run(
        "/bin/sh", "-c", "id -u; id -G; pwd; echo $HOME $USER", user=OTHER.pw_name
    )
    home = OTHER.pw_dir
    expected = f"{OTHER.pw_uid}\n{OTHER.pw_gid}\n{home}\n{home} {OTHER.pw_name}\n"
    assert output(messages).decode() == expected


def test_user_keeps_no_way_back_to_root(client: Client) -> None:
    script = "grep -E '^(Uid|Gid|CapPrm|CapEff|Groups)' /proc/self/status"
    lines = output(client.run("/bin/sh", "-c", script, user=OTHER.pw_name)).decode().split("\n")
    assert lines[0].split() == ["Uid:"] + [str(OTHER.pw_uid)] * 4
    assert lines[1].split() == ["Gid:"] + [str(OTHER.pw_gid)] * 4
    assert lines[2].split() == ["Groups:", str(OTHER.pw_gid)]
    assert {line.split()[1] for line in lines[3:5]} == {"0" * 16}


def test_user_may_open_its_own_output_by_name(client: Client) -> None:
    messages = client.run("/bin/sh", "-c", "echo there > /dev/stderr", user=OTHER.pw_name)
    assert output(messages, "stderr") == b"there\n"


def test_environment_is_account_then_sandbox_then_request(running: Running) -> None:
    assert running.init(sandboxId="isbx", envVars={"A": "1", "B": "1"}).status_code == 204
    os.environ["ENVD_SECRET"] = "not for users"
    messages = running.client.run("/usr/bin/env", envs={"B": "2"}, user=OTHER.pw_name)
    found = dict(line.split("=", 1) for line in output(messages).decode().splitlines())
    assert found.pop("PATH")
    assert found == {
        "HOME": OTHER.pw_dir,
        "USER": OTHER.pw_name,
        "LOGNAME": OTHER.pw_name,
        "E2B_SANDBOX": "true",
        "E2B_SANDBOX_ID": "isbx",
        "A": "1",
        "B": "2",
    }


def test_process_has_its_own_session_and_no_descriptor_of_ours(client: Client) -> None:
    messages = client.run("/bin/sh", "-c", "ps -o sid= $$; ls /proc/self/fd")
    session, *descriptors = output(messages).split()
    assert int(session) == messages[0].event["start"]["pid"]
    assert descriptors == [b"0", b"1", b"2", b"3"]


def test_cwd_is_resolved_for_the_user(running: Running, shared_dir: Path) -> None:
    def where(cwd: str) -> str:
        return output(running.client.run("/bin/pwd", cwd=cwd, user="root")).decode().strip()

    assert where(str(shared_dir)) == str(shared_dir)
    assert where("~") == where("") == str(Path.home())
    assert running.init(defaultWorkdir=str(shared_dir)).status_code == 204
    assert where("") == str(shared_dir)


def test_missing_cwd(client: Client) -> None:
    error = error_of(client.run("/bin/true", cwd="/no/such"))
    assert error == {"code": "invalid_argument", "message": "cwd '/no/such' does not exist"}


def test_cwd_out_of_reach(client: Client, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    error = error_of(client.run("/bin/true", cwd=str(closed / "in"), user=OTHER.pw_name))
    assert error["code"] == "permission_denied"
    assert str(closed / "in") in error["message"]


def test_unknown_user(client: Client) -> None:
    error = error_of(client.run("/bin/true", user="nobody-here"))
    assert error == {"code": "unauthenticated", "message": "invalid username: 'nobody-here'"}


def test_authorization_that_is_not_basic(client: Client) -> None:
    error = error_of(client.run("/bin/true", headers={"authorization": "Bearer x"}))
    assert error["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("/no/such",), "cannot start '/no/such': No such file or directory"),
        (("/etc/passwd",), "cannot start '/etc/passwd': Permission denied"),
        (("/bin/true", "a\0b"), "cannot start '/bin/true': embedded null byte"),
        (("/bin/true", "x" * 200_000), "arguments and environment are too long"),
        (("",), "field 'process.cmd' is missing"),
    ],
)
def test_what_cannot_start(client: Client, argv: tuple[str, ...], message: str) -> None:
    error = error_of(client.run(*argv))
    assert error["code"] == "invalid_argument"
    assert message in error["message"]


def test_time_limit_kills_the_process_and_ends_the_stream(client: Client) -> None:
    request = start_request("/bin/sh", "-c", "sleep 600 & echo $!; wait")
    with client.open_stream(START, request, connect_timeout_ms="300") as stream:
        messages = stream.rest()
    assert messages[-1].body["error"]["code"] == "deadline_exceeded"
    pid = messages[0].event["start"]["pid"]
    missing = client.call("process.Process/SendSignal", signal_request(pid))
    assert missing.json() == {"code": "not_found", "message": f"process with pid {pid} not found"}
    os.kill(int(output(messages)), 9)  # its child is not ours to end


def test_time_limit_holds_without_its_client(client: Client) -> None:
    request = start_request("/bin/sleep", "600")
    with client.open_stream(START, request, connect_timeout_ms="300") as stream:
        pid = stream.next().event["start"]["pid"]
    deadline = time.monotonic() + 10
    while client.call("process.Process/List").json():
        assert time.monotonic() < deadline, f"{pid} still runs"


def test_client_that_goes_leaves_the_process(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/sleep", "600", tag="job")) as stream:
        pid = stream.next().event["start"]["pid"]
    (found,) = client.call("process.Process/List").json()["processes"]
    assert found == {"config": {"cmd": "/bin/sleep", "args": ["600"]}, "pid": pid, "tag": "job"}
    assert client.call("process.Process/SendSignal", signal_request(pid)).json() == {}
    with client.open_stream("process.Process/Connect", {"process": {"tag": "job"}}) as stream:
        messages = stream.rest()
    assert [list(m.event) for m in messages[:-1]] == [["start"], ["end"]]
    assert messages[-2].event["end"]["status"] == "signal: killed"


def signal_request(pid: int, signal: object = "SIGNAL_SIGKILL") -> dict[str, object]:
    return {"process": {"pid": pid}, "signal": signal}


def test_kill_ends_the_stream_though_a_grandchild_holds_the_pipes(client: Client) -> None:
    request = start_request("/bin/sh", "-c", "sleep 600 & echo $!; wait")
    with client.open_stream(START, request) as stream:
        pid = stream.next().event["start"]["pid"]
        grandchild = int(base64.b64decode(stream.next().event["data"]["stdout"]))
        assert client.call("process.Process/SendSignal", signal_request(pid, 9)).status_code == 200
        messages = stream.rest()
    assert messages[-2].event["end"]["error"] == "signal: killed"
    os.kill(grandchild, 9)


def test_signal_other_than_term_and_kill(client: Client) -> None:
    with client.open_stream(START, start_request("/bin/sleep", "600")) as stream:
        pid = stream.next().event["start"]["pid"]
        refused = client.call("process.Process/SendSignal", signal_request(pid, 2))
        assert (refused.status_code, refused.json()["code"]) == (501, "unimplemented")
        client.call("process.Process/SendSignal", signal_request(pid, "SIGNAL_SIGTERM"))
        assert stream.rest()[-2].event["end"]["status"] == "signal: terminated"


@pytest.mark.parametrize("selector", [{"pid": 4_000_000}, {"tag": "none"}])
@pytest.mark.parametrize("method", ["SendSignal", "SendInput", "CloseStdin", "Update"])
def test_unknown_process(client: Client, method: str, selector: dict[str, object]) -> None:
    ((kind, value),) = selector.items()
    answer = client.call(f"process.Process/{method}", {"process": selector, "signal": 9})
    message = f"process with {kind} {value} not found"
    assert (answer.status_code, answer.json()) == (404, {"code": "not_found", "message": message})


def test_connect_to_unknown_process_ends_the_stream(client: Client) -> None:
    with client.open_stream("process.Process/Connect", {"process": {"pid": 4_000_000}}) as stream:
        error = error_of(stream.rest())
    assert error == {"code": "not_found", "message": "process with pid 4000000 not found"}


def test_missing_selector(client: Client) -> None:
    answer = client.call("process.Process/SendSignal", {"signal": 9})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


def test_keepalive_after_silence(client: Client) -> None:
    request = start_request("/bin/sleep", "600")
    with client.open_stream(START, request, keepalive_ping_interval="1") as stream:
        pid = stream.next().event["start"]["pid"]
        assert stream.next().event == {"keepalive": {}}
        client.call("process.Process/SendSignal", signal_request(pid))
        stream.rest()


# The Connect protocol


def test_unknown_fields_enum_names_and_identity_encoding_are_accepted(client: Client) -> None:
    request = start_request("/bin/true", new={"a": 1})
    assert client.run("/bin/true", new={"a": [1]}, headers={"content-encoding": "identity"})
    answer = client.call("process.Process/List", request, content_encoding="identity")
    assert answer.status_code == 200
    assert answer.headers.get("content-encoding", "identity") == "identity"


def test_chunked_body(client: Client) -> None:
    headers = {"content-type": "application/connect+json"}
    body = envelope(start_request("/bin/echo", "hi"))
    pieces = (body[i : i + 7] for i in range(0, len(body), 7))
    answer = client.post(f"/{START}", content=pieces, headers=headers)
    assert json.dumps("aGkK").encode() in answer.content
    assert answer.content.endswith(struct.pack(">BI", 2, 2) + b"{}")


def test_streams_are_never_compressed(client: Client) -> None:
    messages = client.run("/bin/true", headers={"connect-accept-encoding": "gzip,zstd"})
    assert messages[-1] == Message(2, {})


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "unimplemented"),
        (envelope({})[:3], "invalid_argument"),
        (envelope({})[:-1], "invalid_argument"),
        (struct.pack(">BI", 0, 5) + b'{"a":', "invalid_argument"),
        (struct.pack(">BI", 0, 0xFFFFFFFF) + b"{}", "resource_exhausted"),
        (envelope({}) * 2, "unimplemented"),
    ],
)
def test_broken_stream_requests(client: Client, content: bytes, code: str) -> None:
    headers = {"content-type": "application/connect+json"}
    answer = client.post(f"/{START}", content=content, headers=headers)
    assert answer.status_code == 200
    assert answer.content[0] == 2
    assert json.loads(answer.content[5:])["error"]["code"] == code


def test_stream_error_before_the_handler_has_the_stream_form(client: Client) -> None:
    with client.open_stream(START, {}, connect_timeout_ms="soon") as stream:
        assert error_of(stream.rest())["code"] == "invalid_argument"
    with client.open_stream("process.Process/Nope", {}) as stream:
        assert error_of(stream.rest())["code"] == "unimplemented"


def test_unary_errors_have_the_unary_form(client: Client) -> None:
    unknown = client.call("process.Process/Nope")
    assert (unknown.status_code, unknown.json()["code"]) == (501, "unimplemented")
    broken = client.post(
        "/process.Process/List", content="{", headers={"content-type": "application/json"}
    )
    assert (broken.status_code, broken.json()["code"]) == (400, "invalid_argument")
    other = client.post("/process.Process/List", content="x", headers={"content-type": "text/x"})
    assert (other.status_code, other.json()["code"]) == (415, "invalid_argument")


def test_oversize_message_is_refused(client: Client) -> None:
    big = json.dumps({"x": "y" * (33 * 1024 * 1024)})
    answer = client.post(
        "/process.Process/List", content=big, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")


def test_protobuf_codec(client: Client) -> None:
    answer = client.post(
        "/process.Process/List", content=b"", headers={"content-type": "application/proto"}
    )
    assert (answer.status_code, answer.content) == (200, b"")


def test_bad_user_is_asked_of_no_unary_call_that_needs_none(client: Client) -> None:
    assert client.call("process.Process/List", **basic("nobody-here")).status_code == 200
