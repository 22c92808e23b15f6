"""The parts that need no running daemon."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from emberbox.envd.errors import InvalidArgumentError, LimitReachedError, UnauthenticatedError
from emberbox.envd.events import data_event, end_event
from emberbox.envd.files.multipart import PartEnd, Parts, PartStart, boundary_of
from emberbox.envd.identity import acting_as
from emberbox.envd.init import parse_timestamp
from emberbox.envd.listener import ALL_QUEUES_BYTES, MAX_STREAMS, Listener, Listeners
from emberbox.envd.paths import resolve
from emberbox.envd.users import User, Users

if TYPE_CHECKING:
    from pathlib import Path

ANN = User("ann", 1000, 1001, "/home/ann", (1001, 27))


@pytest.mark.parametrize(
    ("path", "default", "expected"),
    [
        ("", "", "/home/ann"),
        ("", "/work", "/work"),
        ("", "~/work", "/home/ann/work"),
        ("~", "/work", "/home/ann"),
        ("~/a", "", "/home/ann/a"),
        ("a/../b", "/work", "/home/ann/b"),
        ("/a//b/", "", "/a/b"),
        ("/a~", "", "/a~"),
    ],
)
def test_resolve(path: str, default: str, expected: str) -> None:
    assert resolve(path, ANN, default) == expected


def test_users_follow_their_files(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0:::\n# no\nbroken\nann:x:1000:1001::/home/ann:/b\n")
    (tmp_path / "group").write_text("root:x:0:\nann:x:1001:\nsudo:x:27:bob,ann\n")
    users = Users(tmp_path)
    assert users.find("ann") == ANN
    assert users.find("root").home == "/"
    assert (users.user_name(1000), users.user_name(77)) == ("ann", "77")
    assert (users.group_name(27), users.group_name(77)) == ("sudo", "77")
    with pytest.raises(UnauthenticatedError, match="invalid username: 'bob'"):
        users.find("bob")
    with (tmp_path / "passwd").open("a") as file:
        file.write("bob:x:1002:1002::/home/bob:/bin/sh\n")
    assert users.find("bob").groups == (1002, 27)


def test_guest_without_user_files(tmp_path: Path) -> None:
    with pytest.raises(UnauthenticatedError):
        Users(tmp_path).find("root")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:01.5z", 1_500_000_000),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("1970-01-01 00:00:00.1234567891234Z", 123_456_789),
    ],
)
def test_timestamps(text: str, nanoseconds: int) -> None:
    assert parse_timestamp(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "now", "1970-01-01", "1970-01-01T00:00:00"])
def test_no_timestamps(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="timestamp"):
        parse_timestamp(text)


def test_end_of_a_crash() -> None:
    event = end_event(signal.SIGSEGV | 0x80).event
    assert event is not None
    assert event.value.status == "signal: segmentation fault (core dumped)"  # type: ignore[union-attr]


def test_multipart_cut_anywhere() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a; b"\r\n'
        b"Content-Type: x/y\r\n\r\nda\r\n--ta\r\n--b--\r\n"
    )
    for cut in range(len(body)):
        parts = Parts("b")
        events = [*parts.feed(body[:cut]), *parts.feed(body[cut:])]
        parts.finish()
        assert events[0] == PartStart("file", "a; b")
        assert events[-1] == PartEnd()
        data = b"".join(e for e in events if isinstance(e, memoryview))
        assert data == b"da\r\n--ta"


def test_boundary() -> None:
    assert boundary_of('multipart/form-data; charset=utf-8; BOUNDARY="a b;c"') == "a b;c"
    with pytest.raises(InvalidArgumentError):
        boundary_of("multipart/form-data")
    with pytest.raises(InvalidArgumentError):
        Parts("x" * 300)


async def test_queue_of_a_client_is_bounded_also_for_tiny_events() -> None:
    space = []
    listener = Listener(Listeners(), lambda: space.append(True))
    put = 0
    while not listener.full:
        listener.put(data_event("stdout", b"x"), 1)
        put += 1
    assert put < 1000
    assert await listener.next(0) is not None
    assert space == [True]
    listener.close()
    assert await listener.next(0) is None


def test_queues_of_all_clients_together_are_bounded() -> None:
    everyone = Listeners()
    listeners = [Listener(everyone, lambda: None) for _ in range(MAX_STREAMS)]
    held = 0
    for listener in listeners:
        while not listener.full:
            listener.put(data_event("stdout", b"x"), 4096)
            held += 4096
    assert held < 2 * ALL_QUEUES_BYTES
    with pytest.raises(LimitReachedError, match="close some of them first"):
        Listener(everyone, lambda: None)
    listeners[0].close()
    listeners[0].close()
    Listener(everyone, lambda: None).close()
    assert everyone.open == MAX_STREAMS - 1


async def test_client_whose_share_grew_makes_room() -> None:
    everyone, space = Listeners(), []
    others = [Listener(everyone, lambda: None) for _ in range(MAX_STREAMS - 1)]
    listener = Listener(everyone, lambda: space.append(True))
    while not listener.full:
        listener.put(data_event("stdout", b"x"), 4096)
    for other in others:
        other.close()
    assert await listener.next(0) is not None
    assert space == [True]


def test_identity_is_of_one_thread_and_ends() -> None:
    seen = []

    def act() -> None:
        with acting_as(ANN):
            seen.append((os.getresuid(), os.getresgid(), os.getgroups()))
        seen.append((os.getresuid(), os.getresgid(), os.getgroups()))

    before = (os.getresuid(), os.getresgid(), os.getgroups())
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert seen == [((1000, 1000, 0), (1001, 1001, 0), [27, 1001]), before]
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_main_thread_keeps_its_identity() -> None:
    with pytest.raises(RuntimeError, match="main thread"), acting_as(ANN):
        pass
