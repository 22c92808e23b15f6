"""Watching: keepalive, time limits, full queues, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.envd.errors import LimitReachedError, NotFoundError
from emberbox.envd.users import Users
from emberbox.envd.watching import directories, inotify
from emberbox.envd.watching.changes import Changes, Options
from emberbox.envd.watching.watchers import MAX_WATCHES, Watchers
from emberbox.envd.workers import Workers
from tests.unit.envd.watching import FLAVOURS, PATIENCE, SERVICE, polling, seen, streaming

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.envd.conftest import Client, Running


def queues() -> int:
    """inotify queues of this process, in which the daemon of the tests runs."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += os.readlink(link) == "anon_inode:inotify"  # noqa: PTH115
        except OSError:
            continue
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def options(path: Path, *, recursive: bool = False) -> Options:
    return Options(str(path), recursive=recursive, include_entry=False, allow_network_mounts=False)


def make_noise(path: Path, count: int) -> None:
    """That many events, no two alike in a row."""
    files = [path / "a", path / "b"]
    for file in files:
        file.touch()
    for number in range(count):
        files[number % 2].chmod(0o600)


def take_all(source: Changes) -> None:
    while source.take() is not None:
        pass


def test_keepalive_when_nothing_happens(client: Client, tmp_path: Path) -> None:
    with streaming(client, tmp_path, headers={"keepalive_ping_interval": "1"}) as watched:
        assert watched.stream.next().body == {"keepalive": {}}
        assert watched.now() == []


def test_time_limit_of_the_stream(client: Client, tmp_path: Path) -> None:
    with streaming(client, tmp_path, headers={"connect_timeout_ms": "300"}) as watched:
        (end,) = watched.stream.rest()
    assert end.body["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("recursive", [False, True])
def test_a_client_that_leaves_frees_the_queue(
    running: Running, tmp_path: Path, recursive: bool
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for _ in range(3):
        with streaming(running.client, tmp_path, recursive=recursive):
            assert queues() == 1
        wait_until(lambda: queues() == 0)
    with streaming(running.client, tmp_path, recursive=recursive):
        make_noise(tmp_path, 1000)  # amidst events, too
    wait_until(lambda: queues() == 0)


def test_a_removed_watcher_is_gone(running: Running, tmp_path: Path) -> None:
    with polling(running.client, tmp_path) as watched:
        assert queues() == 1
    assert queues() == 0
    for method in ("GetWatcherEvents", "RemoveWatcher"):
        answer = running.client.call(f"{SERVICE}/{method}", {"watcherId": watched.id})
        assert answer.status_code == 404
        assert answer.json() == {
            "code": "not_found",
            "message": f"watcher with id {watched.id} not found",
        }


def test_refused_watches_leave_nothing(running: Running, tmp_path: Path) -> None:
    for path in ("/no/such", str(tmp_path / "f"), "/etc/passwd"):
        assert running.client.call(f"{SERVICE}/CreateWatcher", {"path": path}).status_code >= 400
    assert queues() == 0


def test_number_of_watches_is_limited(running: Running, tmp_path: Path) -> None:
    body = {"path": str(tmp_path)}
    with ExitStack() as stack:
        for _ in range(MAX_WATCHES):
            stack.enter_context(FLAVOURS["poll"](running.client, tmp_path))
        refused = running.client.call(f"{SERVICE}/CreateWatcher", body)
        assert (refused.status_code, refused.json()["code"]) == (429, "resource_exhausted")
        with running.client.open_stream(f"{SERVICE}/WatchDir", body) as stream:
            (end,) = stream.rest()
        assert end.body["error"]["code"] == "resource_exhausted"
    with streaming(running.client, tmp_path):
        pass


async def test_a_watcher_that_nobody_polls_is_removed(tmp_path: Path) -> None:
    workers = Workers(Users())
    watchers = Watchers(workers, idle_seconds=0.05)
    watcher_id = await watchers.create(options(tmp_path), workers.users.find("root"))
    await asyncio.to_thread(wait_until, lambda: queues() == 0)
    with pytest.raises(NotFoundError):
        await watchers.drain(watcher_id)
    workers.close()


def test_a_poller_that_never_asks_is_told_what_it_missed(client: Client, tmp_path: Path) -> None:
    with polling(client, tmp_path) as watched:
        make_noise(tmp_path, 40_000)
        kept = 0
        deadline = time.monotonic() + PATIENCE
        while True:
            body = {"watcherId": watched.id}
            answer = client.call(f"{SERVICE}/GetWatcherEvents", body)
            if answer.status_code != 200:
                break
            assert time.monotonic() < deadline
            kept += len(answer.json().get("events", []))
        assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
        assert answer.json()["message"].startswith("events were lost")
        assert 10_000 < kept < 40_000


def test_lost_events_end_a_source(tmp_path: Path) -> None:
    source = Changes(options(tmp_path), Users())
    try:
        source.open()
        make_noise(tmp_path, 20_000)
        with pytest.raises(LimitReachedError, match="events were lost"):
            take_all(source)
    finally:
        source.close()


def test_events_stay_few_while_they_wait(client: Client, tmp_path: Path) -> None:
    with polling(client, tmp_path) as watched:
        for _ in range(20_000):
            (tmp_path / "f").touch()
        assert len(watched.more()) < 10_000, "the same again is not kept"


def test_too_many_directories(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the kernel's limit; lowering it would be felt by other programs."""
    client = running.client
    add = inotify.Inotify.add
    full = False

    def limited(queue: inotify.Inotify, path: str, mask: int) -> int:
        if full:
            raise OSError(errno.ENOSPC, "no space", path)
        return add(queue, path, mask)

    monkeypatch.setattr(inotify.Inotify, "add", limited)
    with streaming(client, tmp_path, recursive=True) as watched:
        full = True
        (tmp_path / "d").mkdir()
        assert seen(watched.stream.next().body["filesystem"]) == ("CREATE", "d")
        (end,) = watched.stream.rest()
        assert end.body["error"]["code"] == "resource_exhausted"
        assert "fs.inotify.max_user_watches" in end.body["error"]["message"]
    refused = client.call(f"{SERVICE}/CreateWatcher", {"path": str(tmp_path)})
    assert (refused.status_code, refused.json()["code"]) == (429, "resource_exhausted")
    wait_until(lambda: queues() == 0)


def test_a_new_directory_with_too_much_in_it(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_MAX_FOUND", 3)
    source = tmp_path.parent / f"{tmp_path.name}-source"
    source.mkdir()
    for name in "abcd":
        (source / name).touch()
    with streaming(client, tmp_path, recursive=True) as watched:
        source.rename(tmp_path / "d")
        assert seen(watched.stream.next().body["filesystem"]) == ("CREATE", "d")
        (end,) = watched.stream.rest()
        assert end.body["error"]["code"] == "resource_exhausted"


@pytest.mark.parametrize("flavour", sorted(FLAVOURS))
def test_network_mounts(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str
) -> None:
    tmpfs = 0x01021994
    monkeypatch.setattr(inotify, "_NETWORK_TYPES", frozenset({tmpfs}))
    shm = Path("/dev/shm")
    assert inotify.on_network(str(shm))
    assert not inotify.on_network("/proc")
    body = {"path": str(shm)}
    refused = client.call(f"{SERVICE}/CreateWatcher", body)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_argument")
    assert "allow_network_mounts" in refused.json()["message"]
    directory = shm / f"envd-watch-{os.getpid()}-{flavour}"
    directory.mkdir()
    try:
        with FLAVOURS[flavour](client, directory, allowNetworkMounts=True) as watched:
            assert watched.now() == []
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
