"""Trees, names and files that are made to break a file server."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.envd import copying, filesystem_service
from tests.unit.envd.conftest import OTHER, Client, basic

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = 1200
"""More than Python's stack has, and with these names longer than any path may be."""
NAME = "deep"


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir(NAME, dir_fd=fd)
        below = os.open(NAME, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT, dir_fd=fd))
    os.close(fd)
    yield top
    assert not top.exists()


def call(client: Client, method: str, **body: Any) -> tuple[int, dict[str, Any]]:
    headers = body.pop("headers", {})
    answer = client.call(f"filesystem.Filesystem/{method}", body, **headers)
    return answer.status_code, answer.json()


def test_a_tree_deeper_than_any_path(client: Client, deep: Path) -> None:
    status, listed = call(client, "ListDir", path=str(deep), depth=10_000)
    assert status == 200
    assert 700 < len(listed["entries"]) < LEVELS
    status, made = call(client, "CreateWatcher", path=str(deep), recursive=True)
    assert status == 200
    assert call(client, "RemoveWatcher", **made) == (200, {})
    assert call(client, "Remove", path=str(deep)) == (200, {})


def test_a_move_that_must_copy_leaves_nothing_when_it_fails(
    client: Client, deep: Path, tmp_path: Path
) -> None:
    shm = Path("/dev/shm")
    if shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    elsewhere = shm / f"envd-deep-{os.getpid()}"
    status, error = call(client, "Move", source=str(deep), destination=str(elsewhere))
    assert (status, error["code"]) == (400, "invalid_argument")
    assert not elsewhere.exists()
    assert deep.exists()
    assert call(client, "Remove", path=str(deep)) == (200, {})


def test_a_move_that_must_copy_keeps_owners_and_kinds(client: Client, tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("x")
    (source / "link").symlink_to("/no/such")
    os.mkfifo(source / "pipe")
    for path in (source, source / "sub", source / "sub/file", source / "link"):
        os.chown(path, OTHER.pw_uid, OTHER.pw_gid, follow_symlinks=False)
    (source / "sub").chmod(0o750)
    (source / "sub/file").chmod(0o4751)
    (source / "pipe").chmod(0o666)
    os.utime(source / "sub", (1, 1))
    os.setxattr(source / "sub/file", "user.e2b.k", b"v")
    moved = shm / f"envd-owners-{os.getpid()}"
    try:
        assert call(client, "Move", source=str(source), destination=str(moved))[0] == 200
        for path in (moved, moved / "sub", moved / "sub/file", moved / "link"):
            assert path.lstat().st_uid == OTHER.pw_uid
        assert (moved / "sub").stat().st_mode & 0o777 == 0o750
        assert (moved / "sub").stat().st_mtime == 1
        assert (moved / "sub/file").stat().st_mode & 0o7777 == 0o4751
        assert os.getxattr(moved / "sub/file", "user.e2b.k") == b"v"
        assert (moved / "pipe").is_fifo()
        assert (moved / "pipe").stat().st_mode & 0o777 == 0o666
        assert not source.exists()
    finally:
        shutil.rmtree(moved)


def test_copying_follows_no_link_that_is_put_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, old, new = tmp_path / "secret", tmp_path / "old", tmp_path / "new"
    secret.write_text("secret")
    secret.chmod(0o600)
    old.write_text("harmless")
    real = os.lstat

    def raced(path: str) -> os.stat_result:
        found = real(path)
        old.unlink()
        old.symlink_to(secret)
        return found

    monkeypatch.setattr(os, "lstat", raced)
    with pytest.raises(OSError, match="symbolic links"):
        copying.copy_tree(str(old), str(new))
    monkeypatch.undo()
    assert not new.exists()


def test_many_entries(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}").touch()
    status, listed = call(client, "ListDir", path=str(tmp_path))
    assert status == 200
    assert [entry["name"] for entry in listed["entries"]] == [f"{n:05}" for n in range(10_000)]
    monkeypatch.setattr(filesystem_service, "_MAX_LISTED", 9999)
    status, error = call(client, "ListDir", path=str(tmp_path))
    assert (status, error["code"]) == (429, "resource_exhausted")
    assert call(client, "Remove", path=str(tmp_path)) == (200, {})
    assert not tmp_path.exists()


def test_listing_while_all_is_removed(client: Client, tmp_path: Path) -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            (tmp_path / "a/b/c").mkdir(parents=True)
            (tmp_path / "a/b/c/f").touch()
            shutil.rmtree(tmp_path / "a")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(50):
            status, answer = call(client, "ListDir", path=str(tmp_path), depth=9)
            assert status == 200, answer
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("method", ["MakeDir", "Stat", "ListDir", "Remove"])
def test_odd_paths_are_answered(client: Client, tmp_path: Path, method: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    for path in (
        "/proc/self/fd/9999",
        "/proc/no/such",
        "/dev/null/x",
        f"{tmp_path}/loop/x",
        f"{tmp_path}/dangling/x",
        "x" * 300,
        "/" + "x/" * 3000,
        "\udcff",
        "a\0b",
    ):
        status, answer = call(client, method, path=path)
        assert status < 500, (path[:40], answer)


@pytest.mark.parametrize(
    ("seconds", "told"), [(10**12, "9999-12-31T23:59:59Z"), (-(10**12), "0001-01-01T00:00:00Z")]
)
def test_times_beyond_the_calendar(client: Client, seconds: int, told: str) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        file = Path(directory, "x")
        file.write_text("content")
        os.utime(file, (seconds, seconds))
        assert file.stat().st_mtime == seconds, "not a tmpfs"
        status, answer = call(client, "ListDir", path=directory)
        assert (status, answer["entries"][0]["modifiedTime"]) == (200, told)
        assert client.get("/files", params={"path": str(file)}).text == "content"


def test_two_slashes_are_one(client: Client) -> None:
    assert call(client, "Stat", path="//etc//passwd")[1]["entry"]["path"] == "/etc/passwd"
    assert call(client, "Remove", path="//")[1]["code"] == "invalid_argument"


def test_moves_that_make_no_sense(client: Client, tmp_path: Path) -> None:
    (tmp_path / "dir/full").mkdir(parents=True)
    (tmp_path / "file").touch()
    for source, destination, named in (
        ("dir", "dir/in/itself", "into itself"),
        ("file", "dir", f"destination '{tmp_path}/dir' is a directory"),
        ("dir", "file", f"destination '{tmp_path}/file' is not a directory"),
        ("dir/full", "dir", "not empty"),
        ("file", "file/x", "is not a directory"),
    ):
        status, error = call(
            client, "Move", source=f"{tmp_path}/{source}", destination=f"{tmp_path}/{destination}"
        )
        assert (status, error["code"]) == (400, "invalid_argument"), error
        assert named in error["message"]
    assert call(client, "Move", source="/proc", destination=f"{tmp_path}/p")[0] == 400


def test_a_directory_that_can_be_listed_but_not_entered(client: Client, shared_dir: Path) -> None:
    closed = shared_dir / "closed"
    closed.mkdir()
    (closed / "file").touch()
    closed.chmod(0o744)
    status, listed = call(
        client, "ListDir", path=str(shared_dir), depth=2, headers=basic(OTHER.pw_name)
    )
    assert status == 200
    assert listed["entries"][1] == {"name": "file", "path": f"{closed}/file"}


def test_removing_what_may_not_be_removed_names_it(client: Client, shared_dir: Path) -> None:
    (shared_dir / "top/closed").mkdir(parents=True)
    (shared_dir / "top").chmod(0o777)
    (shared_dir / "top/closed/file").touch()
    status, error = call(client, "Remove", path=f"{shared_dir}/top", headers=basic(OTHER.pw_name))
    assert (status, error["code"]) == (403, "permission_denied")
    assert error["message"] == f"permission denied: '{shared_dir}/top/closed/file'"


def test_special_files_are_refused_at_once(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/zero", "/dev/tty"):
            assert client.get("/files", params={"path": str(path)}).status_code == 400
        octets = {"content-type": "application/octet-stream"}
        for path in (tmp_path / "pipe", tmp_path / "socket"):
            answer = client.post("/files", params={"path": str(path)}, content=b"x", headers=octets)
            assert answer.status_code == 400
        for path in ("/proc/no/such/x", "/proc/version/x"):
            answer = client.post("/files", params={"path": path}, content=b"x", headers=octets)
            assert answer.status_code in {400, 404}
    for codings in ("gzip, deflate", "gzip", "identity"):
        answer = client.get(
            "/files", params={"path": "/proc/kmsg"}, headers={"accept-encoding": codings}
        )
        assert answer.status_code in {200, 400}
