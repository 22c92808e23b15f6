"""WatchDir, and CreateWatcher with GetWatcherEvents: what both tell."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.envd.conftest import OTHER, Client, basic
from tests.unit.envd.watching import FLAVOURS, SERVICE, Streamed, Watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Watching = Callable[..., AbstractContextManager[Watched]]

AS_OTHER = basic(OTHER.pw_name)
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture(params=sorted(FLAVOURS))
def watching(request: pytest.FixtureRequest) -> Watching:
    return FLAVOURS[request.param]


def upload(client: Client, path: Path, content: bytes = b"x", **params: str) -> None:
    query = {"path": str(path), **params}
    assert client.post("/files", params=query, content=content, headers=OCTETS).status_code == 200


@pytest.mark.parametrize("content", [b"x", b""])
def test_upload_of_a_new_file_is_create_chmod_write(
    client: Client, tmp_path: Path, watching: Watching, content: bytes
) -> None:
    with watching(client, tmp_path) as watched:
        upload(client, tmp_path / "f", content)
        assert watched.now() == [("CREATE", "f"), ("CHMOD", "f"), ("WRITE", "f")]


def test_upload_for_another_user_is_the_same(
    client: Client, shared_dir: Path, watching: Watching
) -> None:
    with watching(client, shared_dir, headers=AS_OTHER) as watched:
        upload(client, shared_dir / "f", username=OTHER.pw_name)
        assert watched.now() == [("CREATE", "f"), ("CHMOD", "f"), ("WRITE", "f")]


def test_every_kind_of_change(client: Client, tmp_path: Path, watching: Watching) -> None:
    (tmp_path / "old").write_text("x")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.touch()
    with watching(client, tmp_path) as watched:
        (tmp_path / "old").chmod(0o600)
        (tmp_path / "old").rename(tmp_path / "new")
        outside.rename(tmp_path / "came")
        (tmp_path / "came").rename(outside)
        (tmp_path / "new").unlink()
        (tmp_path / "dir").mkdir()
        (tmp_path / "dir/not told").touch()
        (tmp_path / "link").symlink_to("nowhere")
        assert watched.now() == [
            ("CHMOD", "old"),
            ("RENAME", "old"),
            ("CREATE", "new"),
            ("CREATE", "came"),
            ("RENAME", "came"),
            ("REMOVE", "new"),
            ("CREATE", "dir"),
            ("CREATE", "link"),
        ]
    outside.unlink()


def test_what_was_there_is_watched_at_all_depths(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    with watching(client, tmp_path, recursive=True) as watched:
        (deep / "f").touch()
        (tmp_path / "a/b").chmod(0o700)
        assert watched.now() == [("CREATE", "a/b/c/f"), ("CHMOD", "a/b")]


def test_new_directories_are_watched(client: Client, tmp_path: Path, watching: Watching) -> None:
    with watching(client, tmp_path, recursive=True) as watched:
        (tmp_path / "d").mkdir()
        watched.until(lambda events: ("CREATE", "d") in events)
        assert watched.now() == []
        upload(client, tmp_path / "d/f")
        assert watched.now() == [("CREATE", "d/f"), ("CHMOD", "d/f"), ("WRITE", "d/f")]


def test_what_a_new_directory_holds_already_is_created_and_told_once(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    source = tmp_path.parent / f"{tmp_path.name}-source"
    names = [f"d{n}/e{n}/f" for n in range(50)]
    for name in names:
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text("x")
    with watching(client, tmp_path, recursive=True) as watched:
        shutil.copytree(source, tmp_path / "copy")
        source.rename(tmp_path / "moved")
        found = watched.now()
        for top in ("copy", "moved"):
            for name in names:
                for path in (f"{top}/{name}", f"{top}/{name}".rpartition("/")[0]):
                    assert found.count(("CREATE", path)) == 1, path
                assert ("WRITE", f"{top}/{name}") in found
        (tmp_path / "moved/d7/e7/g").touch()
        assert ("CREATE", "moved/d7/e7/g") in watched.now()


def test_a_renamed_directory_is_watched_under_its_new_name(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    (tmp_path / "old/sub").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    with watching(client, tmp_path, recursive=True) as watched:
        (tmp_path / "old").rename(tmp_path / "there/new")
        (tmp_path / "there/new/sub/f").touch()
        assert watched.now() == [
            ("RENAME", "old"),
            ("CREATE", "there/new"),
            ("CREATE", "there/new/sub/f"),
        ]


def test_a_directory_that_was_moved_out_is_not_watched(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    with watching(client, tmp_path, recursive=True) as watched:
        (tmp_path / "in").rename(outside)
        assert watched.now() == [("RENAME", "in")]
        (outside / "sub/f").touch()
        assert watched.now() == []
        outside.rename(tmp_path / "back")
        (tmp_path / "back/sub/g").touch()
        found = watched.now()
        assert ("CREATE", "back/sub/f") in found
        assert ("CREATE", "back/sub/g") in found


def test_a_removed_and_remade_directory_is_watched(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    (tmp_path / "d").mkdir()
    with watching(client, tmp_path, recursive=True) as watched:
        for _ in range(3):
            (tmp_path / "d").rmdir()
            (tmp_path / "d").mkdir()
        assert watched.now() == [("REMOVE", "d"), ("CREATE", "d")] * 3
        (tmp_path / "d/f").touch()
        assert watched.now() == [("CREATE", "d/f")]


def test_links_are_not_followed_but_as_the_root(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    root.symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(tmp_path)
    with watching(client, root, recursive=True) as watched:
        (elsewhere / "f").touch()
        (tmp_path / "beside").touch()
        assert watched.now() == [("CREATE", "f")]


@pytest.mark.parametrize("last", ["removed", "renamed"])
def test_the_end_of_the_watched_directory(
    client: Client, tmp_path: Path, watching: Watching, last: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with watching(client, root) as watched:
        if last == "removed":
            root.rmdir()
        else:
            root.rename(tmp_path / "other")
        expected = {"removed": "REMOVE", "renamed": "RENAME"}[last]
        assert watched.until(bool) == [(expected, ".")]
        if isinstance(watched, Streamed):
            assert [message.body for message in watched.stream.rest()] == [{}]
        else:
            assert watched.more() == []


def test_change_of_the_watched_directory_itself(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    with watching(client, tmp_path, recursive=True) as watched:
        tmp_path.chmod(0o711)
        assert watched.now() == [("CHMOD", ".")]


def entries(watched: Watched, count: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    while len(found) < count:
        found += [(event["type"][11:], event.get("entry")) for event in watched.more()]
    return found


def test_entries_of_what_is_there(client: Client, tmp_path: Path, watching: Watching) -> None:
    file = tmp_path / "sub/f"
    file.parent.mkdir()
    with watching(client, tmp_path, recursive=True, includeEntry=True) as watched:
        file.write_text("four")
        ((created, first), (written, second)) = entries(watched, 2)
        assert (created, written) == ("CREATE", "WRITE")
        assert first["path"] == second["path"] == str(file)
        assert (second["size"], second["type"]) == ("4", "FILE_TYPE_FILE")
        file.rename(tmp_path / "new")
        ((renamed, gone), (_, there)) = entries(watched, 2)
        assert (renamed, gone, there["name"]) == ("RENAME", None, "new")
        file.parent.rmdir()
        (tmp_path / "new").unlink()
        assert entries(watched, 2) == [("REMOVE", None), ("REMOVE", None)]


def test_names_that_are_not_utf8(client: Client, tmp_path: Path, watching: Watching) -> None:
    name = os.fsencode(tmp_path) + b"/\xff"
    with watching(client, tmp_path, recursive=True, includeEntry=True) as watched:
        os.mkdir(name)  # noqa: PTH102 - bytes
        os.close(os.open(name + b"/\xfe", os.O_CREAT))
        assert ("CREATE", "\N{REPLACEMENT CHARACTER}") in watched.now()


def test_a_long_burst_comes_whole(client: Client, tmp_path: Path, watching: Watching) -> None:
    """More than one read of the kernel's queue, with the longest names."""
    names = [f"{n}".ljust(255, "x") for n in range(1500)]
    with watching(client, tmp_path) as watched:
        for name in names:
            (tmp_path / name).touch()
        assert watched.now() == [("CREATE", name) for name in names]


def refusal(client: Client, method: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    if method == "WatchDir":
        with client.open_stream(f"{SERVICE}/{method}", body, **headers) as stream:
            (message,) = stream.rest()
        error: dict[str, Any] = message.body["error"]
        return error
    return dict(client.call(f"{SERVICE}/{method}", body, **headers).json())


@pytest.mark.parametrize("method", ["WatchDir", "CreateWatcher"])
def test_what_cannot_be_watched(client: Client, shared_dir: Path, method: str) -> None:
    (shared_dir / "file").touch()
    os.mkfifo(shared_dir / "pipe")
    (shared_dir / "loop").symlink_to("loop")
    (shared_dir / "closed").mkdir(mode=0o700)

    def refused(path: str, **headers: str) -> tuple[str, str]:
        error = refusal(client, method, {"path": path}, **headers)
        return error["code"], error["message"]

    assert refused("/no/such") == ("not_found", "path '/no/such' does not exist")
    for name in ("file", "pipe"):
        path = f"{shared_dir}/{name}"
        assert refused(path) == ("invalid_argument", f"path '{path}' is not a directory")
    for path in ("a\0b", f"{shared_dir}/{'x' * 300}", "~root", f"{shared_dir}/loop"):
        assert refused(path)[0] == "invalid_argument", path
    assert refused(f"{shared_dir}/closed", **AS_OTHER) == (
        "permission_denied",
        f"permission denied: '{shared_dir}/closed'",
    )
    assert refused("/", **basic("nobody-here"))[0] == "unauthenticated"


def test_closed_subdirectories_are_left_out(
    client: Client, shared_dir: Path, watching: Watching
) -> None:
    for name in ("closed", "open"):
        (shared_dir / name).mkdir()
    (shared_dir / "closed").chmod(0o700)
    with watching(client, shared_dir, recursive=True, headers=AS_OTHER) as watched:
        (shared_dir / "closed/secret").touch()
        (shared_dir / "open/f").touch()
        assert watched.now() == [("CREATE", "open/f")]


def test_relative_path_starts_at_the_home(
    client: Client, tmp_path: Path, watching: Watching
) -> None:
    with watching(client, f"../{str(tmp_path).lstrip('/')}") as watched:
        (tmp_path / "f").touch()
        assert watched.until(bool) == [("CREATE", "f")]
