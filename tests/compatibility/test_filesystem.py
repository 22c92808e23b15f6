"""`sandbox.files`: directories and information, with the official Python package."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from e2b import (
    AuthenticationException,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
)

from tests.compatibility.covering import covers, covers_error

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

HOME = "/home/user"


@covers("Filesystem.make_dir", "Filesystem.exists")
@covers_error("False when it exists", "Filesystem.make_dir", "Filesystem.exists")
async def test_directories(box: Any) -> None:
    assert await box.files.make_dir("dirs/one/two") is True
    assert await box.files.make_dir(f"{HOME}/dirs/one/two") is False
    assert await box.files.exists("dirs/one")
    assert not await box.files.exists("dirs/none")
    info = await box.files.get_info("dirs/one/two")
    assert (info.owner, info.group, info.permissions) == ("user", "user", "drwxr-xr-x")


@covers("Filesystem.list")
async def test_what_is_in_a_directory(box: Any) -> None:
    await box.files.write_files([{"path": f"tree/{p}", "data": p} for p in ("b", "a/c", "a/d/e")])

    async def paths(**options: Any) -> list[str]:
        entries = await box.files.list("tree", **options)
        return [entry.path.removeprefix(f"{HOME}/tree/") for entry in entries]

    assert await paths() == ["a", "b"]
    assert await paths(depth=2) == ["a", "a/c", "a/d", "b"]
    assert await paths(depth=9) == ["a", "a/c", "a/d", "a/d/e", "b"]
    kinds = {entry.name: entry.type for entry in await box.files.list("tree")}
    assert kinds == {"a": FileType.DIR, "b": FileType.FILE}


@covers("Filesystem.get_info")
async def test_what_a_file_is(box: Any) -> None:
    await box.files.write("looked-at", "12345")
    await box.commands.run("chmod 640 looked-at && ln -s looked-at link")
    info = await box.files.get_info("looked-at")
    assert (info.name, info.path, info.type) == ("looked-at", f"{HOME}/looked-at", FileType.FILE)
    assert (info.size, info.mode, info.permissions) == (5, 0o640, "-rw-r-----")
    assert (info.owner, info.group, info.symlink_target) == ("user", "user", None)
    assert abs(datetime.now(UTC) - info.modified_time) < timedelta(minutes=5)
    link = await box.files.get_info("link")
    assert (link.type, link.symlink_target) == (FileType.FILE, f"{HOME}/looked-at")


@covers("Filesystem.rename")
async def test_another_name(box: Any) -> None:
    await box.files.write("old", "same")
    info = await box.files.rename("old", "moved/to/new")
    assert (info.path, info.size) == (f"{HOME}/moved/to/new", 4)
    assert not await box.files.exists("old")
    assert await box.files.read("moved/to/new") == "same"


@covers("Filesystem.remove")
async def test_remove(box: Any) -> None:
    await box.files.write("away/with/it", "")
    await box.files.remove("away")
    assert not await box.files.exists("away")
    await box.files.remove("away")


@covers_error(FileNotFoundException, "Filesystem.list", "Filesystem.get_info", "Filesystem.rename")
async def test_what_is_not_there(box: Any) -> None:
    files = box.files
    for call in (files.list("none"), files.get_info("none"), files.rename("none", "other")):
        with pytest.raises(FileNotFoundException, match="none"):
            await call


@covers_error(InvalidArgumentException, "Filesystem.list", "Filesystem.make_dir")
async def test_what_is_no_directory(box: Any) -> None:
    await box.files.write("plain", "")
    for call in (box.files.list("plain"), box.files.make_dir("plain")):
        with pytest.raises(InvalidArgumentException):
            await call
    with pytest.raises(InvalidArgumentException, match="depth"):
        await box.files.list(".", depth=0)


@covers_error(AuthenticationException, "Filesystem.list", "Filesystem.get_info")
@covers_error(AuthenticationException, "Filesystem.rename", "Filesystem.make_dir")
@covers_error(AuthenticationException, "Filesystem.exists", "Filesystem.remove")
async def test_a_user_that_is_not_there(box: Any) -> None:
    files, who = box.files, {"user": "nobody-here"}
    for call in (
        files.list(".", **who),
        files.get_info(".", **who),
        files.rename("a", "b", **who),
        files.make_dir("d", **who),
        files.exists(".", **who),
        files.remove("d", **who),
    ):
        with pytest.raises(AuthenticationException, match="invalid username"):
            await call
