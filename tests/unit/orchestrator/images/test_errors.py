"""What goes wrong on the host is one line that says what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from emberbox.orchestrator.images import ImageStore, OwnKernel, ensure_images, find_images, tools
from emberbox.orchestrator.images.apt import host_release
from emberbox.orchestrator.images.errors import (
    BadSettingError,
    ImageError,
    LowDiskError,
    MissingToolError,
    NotRootError,
    ToolFailedError,
)


def test_building_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NotRootError, match="built as root: run the command with sudo"):
        ensure_images(ImageStore(tmp_path))


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(MissingToolError, match=r"mmdebstrap is not .*: run apt-get install mmdeb"):
        tools.require("mmdebstrap", "mmdebstrap")


def test_too_little_disk_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(tools, "BUILD_SPACE", free * 2 + (10 << 30))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tools, "require", lambda _tool, _package: None)

    with pytest.raises(LowDiskError, match="GiB are free: make room there or set EMBERBOX_HOME"):
        ensure_images(ImageStore(tmp_path / "images"))
    assert list((tmp_path / "images").iterdir()) == []


def test_a_tool_that_fails_is_told_by_its_error_line() -> None:
    script = "echo 'Reading lists'; echo 'E: no such package' >&2; echo 'W: later' >&2; exit 100"

    with pytest.raises(ToolFailedError) as caught:
        tools.run(["sh", "-c", script], doing="resolving", remedy="try again")

    assert str(caught.value) == "resolving failed (sh: E: no such package): try again"
    assert "W: later" in caught.value.output


def test_lines_of_a_tool_come_as_they_are_written() -> None:
    lines: list[str] = []
    script = "echo one >&2; echo out; echo two >&2"

    tools.run(["sh", "-c", script], doing="x", remedy="y", on_line=lines.append)

    assert lines == ["one", "two"]


def test_another_distribution_is_told(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text('ID="fedora"\nVERSION_ID=40\n')

    with pytest.raises(ImageError, match="built on Debian, and this host is fedora"):
        host_release(os_release)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (OwnKernel(Path("/nonexistent")), "EMBERBOX_KERNEL=/nonexistent is not a file"),
        (
            OwnKernel(Path("/etc/os-release"), Path("/nonexistent")),
            "EMBERBOX_KERNEL_MODULES=/nonexistent is not a directory",
        ),
    ],
)
def test_a_wrong_kernel_setting_is_named(tmp_path: Path, own: OwnKernel, message: str) -> None:
    with pytest.raises(BadSettingError, match=message):
        find_images(ImageStore(tmp_path), own)


def test_an_empty_store_has_no_set(tmp_path: Path) -> None:
    assert find_images(ImageStore(tmp_path)) is None
