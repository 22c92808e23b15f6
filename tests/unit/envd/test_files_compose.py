"""POST /files/compose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.envd.conftest import OTHER, Client, Running

if TYPE_CHECKING:
    from pathlib import Path


def compose(client: Client, expect: int = 200, **body: Any) -> dict[str, Any]:
    answer = client.post("/files/compose", json=body)
    assert answer.status_code == expect, answer.text
    found: dict[str, Any] = answer.json()
    if expect != 200:
        assert found.keys() == {"code", "message"}
        assert found["code"] == expect
    return found


def test_files_are_put_together_in_order(client: Client, tmp_path: Path) -> None:
    big = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(big)
    (tmp_path / "b").write_bytes(b"end")
    sources = [f"{tmp_path}/{name}" for name in "baab"]
    answer = compose(client, source_paths=sources, destination=f"{tmp_path}/new/dir/all")
    assert answer == {"path": f"{tmp_path}/new/dir/all", "name": "all", "type": "file"}
    assert (tmp_path / "new/dir/all").read_bytes() == b"end" + big + big + b"end"
    assert os.listdir(tmp_path / "new/dir") == ["all"]  # noqa: PTH208
    assert (tmp_path / "a").exists()


def test_the_destination_may_be_a_source(client: Client, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1")
    (tmp_path / "log").chmod(0o640)
    (tmp_path / "more").write_text("2")
    (tmp_path / "link").symlink_to("log")
    sources = [f"{tmp_path}/log", f"{tmp_path}/more"]
    compose(client, source_paths=sources, destination=f"{tmp_path}/link")
    assert (tmp_path / "log").read_text() == "12"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link").is_symlink()


def test_rights_are_those_of_the_user(client: Client, shared_dir: Path) -> None:
    (shared_dir / "a").write_text("x")
    body: dict[str, Any] = {"source_paths": [f"{shared_dir}/a"], "username": OTHER.pw_name}
    compose(client, **body, destination=f"{shared_dir}/d/mine")
    made = shared_dir / "d/mine"
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (OTHER.pw_uid, 0o644)
    assert made.parent.stat().st_uid == OTHER.pw_uid
    (shared_dir / "a").chmod(0o600)
    compose(client, 403, **body, destination=f"{shared_dir}/other")
    assert not (shared_dir / "other").exists()
    compose(client, 401, **body | {"username": "no-one"}, destination="/tmp/x")


def test_a_failure_leaves_all_as_it_was(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "old").write_text("kept")
    error = compose(
        client,
        404,
        source_paths=[f"{tmp_path}/a", f"{tmp_path}/missing"],
        destination=f"{tmp_path}/old",
    )
    assert error["message"] == f"path '{tmp_path}/missing' does not exist"
    assert (tmp_path / "old").read_text() == "kept"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "old"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source_paths": None}, "source_paths"),
        ({"source_paths": []}, "source_paths"),
        ({"source_paths": "a"}, "source_paths"),
        ({"source_paths": [1]}, "source_paths"),
        ({"source_paths": [""]}, "source_paths"),
        ({"source_paths": ["a\0b"]}, "null byte"),
        ({"source_paths": ["/tmp"]}, "is a directory"),
        ({"destination": None}, "destination"),
        ({"destination": 1}, "destination"),
        ({"destination": "/tmp"}, "not a regular file"),
        ({"destination": "/dev/null"}, "not a regular file"),
        ({"destination": "/tmp/" + "x" * 300}, "too long"),
        ({"username": 1}, "username"),
    ],
)
def test_bad_requests(client: Client, change: dict[str, object], named: str) -> None:
    body: dict[str, Any] = {"source_paths": ["/etc/passwd"], "destination": "/tmp/envd-composed"}
    assert named in compose(client, 400, **body | change)["message"]


def test_a_pipe_is_refused_at_once(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    compose(client, 400, source_paths=[f"{tmp_path}/pipe"], destination=f"{tmp_path}/x")
    assert not (tmp_path / "x").exists()


def test_the_token_is_needed(running: Running, tmp_path: Path) -> None:
    running.init(accessToken="secret")
    body = {"source_paths": ["/etc/passwd"], "destination": f"{tmp_path}/x"}
    assert running.client.post("/files/compose", json=body).status_code == 401
    headers = {"x-access-token": "secret"}
    assert running.client.post("/files/compose", json=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"source_paths": ["/etc/hostname"], "destination": "/tmp/\\ud800"}',
        '{"source_paths": ["/tmp/\\ud800"], "destination": "/tmp/x"}',
        "[" * 100_000,
    ],
)
def test_bodies_that_make_no_sense(client: Client, body: str) -> None:
    assert client.post("/files/compose", content=body).status_code == 400
