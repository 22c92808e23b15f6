"""Stat, ListDir, MakeDir, Move and Remove, with the rights of the asked user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.envd.conftest import OTHER, Client, basic

AS_OTHER = basic(OTHER.pw_name)


def call(client: Client, method: str, expect: int = 200, **body: Any) -> dict[str, Any]:
    headers = body.pop("headers", {})
    answer = client.call(f"filesystem.Filesystem/{method}", body, **headers)
    assert answer.status_code == expect, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_stat_of_a_file(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "a b"
    file.write_text("four")
    file.chmod(0o640)
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    entry = call(client, "Stat", path=str(file))["entry"]
    assert entry == {
        "name": "a b",
        "type": "FILE_TYPE_FILE",
        "path": str(file),
        "size": "4",
        "mode": 0o640,
        "permissions": "-rw-r-----",
        "owner": "root",
        "group": "root",
        "modifiedTime": "2023-11-14T22:13:20.123456789Z",
    }


def test_stat_of_links_directories_and_others(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    link = call(client, "Stat", path=f"{tmp_path}/link")["entry"]
    assert (link["type"], link["symlinkTarget"]) == ("FILE_TYPE_FILE", f"{tmp_path}/file")
    assert "isSymlink" not in link
    assert call(client, "Stat", path=f"{tmp_path}/broken")["entry"]["type"] == "FILE_TYPE_SYMLINK"
    assert "type" not in call(client, "Stat", path=f"{tmp_path}/pipe")["entry"]
    root = call(client, "Stat", path="/")["entry"]
    assert (root["name"], root["type"]) == ("/", "FILE_TYPE_DIRECTORY")
    assert root["permissions"] == "drwxr-xr-x"


def test_missing_path(client: Client) -> None:
    for method, field in (("Stat", "path"), ("ListDir", "path"), ("Move", "source")):
        error = call(client, method, 404, **{field: "/no/such", "destination": "/tmp/x"})
        expected = {"code": "not_found", "message": "path '/no/such' does not exist"}
        if method != "Move":
            error.pop("destination", None)
        assert error == expected


def test_paths_start_at_home(client: Client) -> None:
    home = Path.home()
    assert call(client, "Stat", path="~")["entry"]["path"] == str(home)
    assert call(client, "Stat", path="")["entry"]["path"] == str(home)
    assert call(client, "Stat", path="../etc/./passwd")["entry"]["path"] == "/etc/passwd"
    assert call(client, "Stat", 400, path="~root/x")["code"] == "invalid_argument"
    assert call(client, "Stat", 400, path="a\0b")["code"] == "invalid_argument"


def test_list_is_pre_order_and_lexical(client: Client, tmp_path: Path) -> None:
    for name in ("b/z", "b/a", "a", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)

    def names(**body: Any) -> list[str]:
        entries = call(client, "ListDir", path=str(tmp_path), **body)["entries"]
        return [entry["path"].removeprefix(f"{tmp_path}/") for entry in entries]

    assert names() == names(depth=1) == ["a", "b", "c", "loop"]
    assert names(depth=2) == ["a", "b", "b/a", "b/z", "c", "c/d", "loop"]
    assert names(depth=9) == ["a", "b", "b/a", "b/z", "c", "c/d", "c/d/e", "loop"]
    through = call(client, "ListDir", path=f"{tmp_path}/loop")["entries"]
    assert through[0]["path"] == f"{tmp_path}/loop/a"
    assert call(client, "ListDir", path=f"{tmp_path}/c/d/../../b/..", depth=1)["entries"]


def test_list_of_a_file_and_of_nothing(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    error = call(client, "ListDir", 400, path=f"{tmp_path}/file")
    assert error["code"] == "invalid_argument"
    assert f"path '{tmp_path}/file' is not a directory" == error["message"]
    assert call(client, "ListDir", path=f"{tmp_path}/empty") == {}


def test_names_that_are_not_utf8_are_listed(client: Client, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    (entry,) = call(client, "ListDir", path=str(tmp_path))["entries"]
    assert entry["name"] == "\N{REPLACEMENT CHARACTER}"


def test_make_dir(client: Client, shared_dir: Path) -> None:
    path = shared_dir / "x/y/z"
    entry = call(client, "MakeDir", path=str(path), headers=AS_OTHER)["entry"]
    assert (entry["type"], entry["owner"]) == ("FILE_TYPE_DIRECTORY", OTHER.pw_name)
    assert entry["permissions"] == "drwxr-xr-x"
    assert (shared_dir / "x").stat().st_uid == OTHER.pw_uid
    error = call(client, "MakeDir", 409, path=str(path))
    assert error["code"] == "already_exists"
    (path / "file").touch()
    assert call(client, "MakeDir", 400, path=f"{path}/file")["code"] == "invalid_argument"
    assert call(client, "MakeDir", 400, path=f"{path}/file/in")["code"] == "invalid_argument"


def test_move(client: Client, shared_dir: Path) -> None:
    (shared_dir / "old").write_text("x")
    entry = call(
        client,
        "Move",
        source=f"{shared_dir}/old",
        destination=f"{shared_dir}/new/dir/name",
        headers=AS_OTHER,
    )["entry"]
    assert entry["path"] == f"{shared_dir}/new/dir/name"
    assert not (shared_dir / "old").exists()
    assert (shared_dir / "new").stat().st_uid == OTHER.pw_uid


def test_move_between_file_systems(client: Client, tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    source = shm / f"envd-test-{os.getpid()}"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("x")
    (source / "link").symlink_to("sub/file")
    call(client, "Move", source=str(source), destination=f"{tmp_path}/moved")
    assert not source.exists()
    assert (tmp_path / "moved/sub/file").read_text() == "x"
    assert (tmp_path / "moved/link").is_symlink()
    (shm / source.name).write_text("y")
    call(client, "Move", source=str(source), destination=f"{tmp_path}/moved/sub/file")
    assert (tmp_path / "moved/sub/file").read_text() == "y"


def test_remove(client: Client, tmp_path: Path) -> None:
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/sub/file").touch()
    (tmp_path / "link").symlink_to("dir")
    assert call(client, "Remove", path=f"{tmp_path}/link") == {}
    assert (tmp_path / "dir/sub/file").exists()
    assert call(client, "Remove", path=f"{tmp_path}/dir") == {}
    assert list(tmp_path.iterdir()) == []
    assert call(client, "Remove", path=f"{tmp_path}/dir") == {}
    assert call(client, "Remove", 400, path="/")["code"] == "invalid_argument"


def test_every_call_has_the_rights_of_the_user(client: Client, shared_dir: Path) -> None:
    closed = shared_dir / "closed"
    (closed / "in").mkdir(parents=True)
    (closed / "in/file").touch()
    closed.chmod(0o700)
    path = f"{closed}/in"
    for method, body in {
        "Stat": {"path": path},
        "ListDir": {"path": path},
        "MakeDir": {"path": f"{path}/new"},
        "Remove": {"path": path},
        "Move": {"source": path, "destination": f"{shared_dir}/mine"},
    }.items():
        error = call(client, method, 403, **body, headers=AS_OTHER)
        assert error["code"] == "permission_denied"
        assert error["message"].startswith("permission denied: '"), method
        assert str(closed) in error["message"]
    assert (closed / "in/file").exists()
    assert call(client, "Stat", path=path)["entry"]["owner"] == "root"


def test_threads_are_root_again_after_acting_for_a_user(client: Client, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for _ in range(20):
        call(client, "Stat", 403, path=f"{tmp_path}/x", headers=AS_OTHER)
    for _ in range(20):
        call(client, "Stat", path=str(tmp_path))


def test_unknown_user(client: Client) -> None:
    error = call(client, "Stat", 401, path="/", headers=basic("nobody-here"))
    assert error == {"code": "unauthenticated", "message": "invalid username: 'nobody-here'"}
