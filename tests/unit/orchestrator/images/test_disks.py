"""Scratch disks and sparse copies."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.images.disks import copy_sparse, make_scratch

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def blocks(path: Path) -> int:
    """Bytes that a file takes on disk."""
    return path.stat().st_blocks * 512


def features(path: Path) -> set[str]:
    output = subprocess.run(
        ["dumpe2fs", "-h", path], capture_output=True, text=True, check=True
    ).stdout
    line = next(each for each in output.splitlines() if each.startswith("Filesystem features"))
    return set(line.split(":")[1].split())


def test_a_scratch_disk_has_its_size_and_takes_almost_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "scratch"
    make_scratch(disk, 10_240)

    assert disk.stat().st_size == 10_240 * MIB
    assert blocks(disk) < 2 * MIB
    assert disk.stat().st_mode & 0o777 == 0o600


def test_a_scratch_disk_is_a_clean_ext4_without_journal(tmp_path: Path) -> None:
    disk = tmp_path / "scratch"
    make_scratch(disk, 64)

    subprocess.run(["e2fsck", "-f", "-n", disk], check=True, capture_output=True)
    assert "has_journal" not in features(disk)
    assert "ext_attr" in features(disk)


def test_no_inode_table_is_left_to_the_guest_to_zero(tmp_path: Path) -> None:
    disk = tmp_path / "scratch"
    make_scratch(disk, 2048)

    output = subprocess.run(["dumpe2fs", disk], capture_output=True, text=True, check=True).stdout
    groups = [line for line in output.splitlines() if re.match(r"Group \d", line)]
    assert len(groups) == 16
    assert all("ITABLE_ZEROED" in group for group in groups)


def test_a_scratch_disk_never_replaces_a_file(tmp_path: Path) -> None:
    disk = tmp_path / "scratch"
    disk.write_text("someone's")

    with pytest.raises(FileExistsError):
        make_scratch(disk, 64)
    assert disk.read_text() == "someone's"


def test_a_copy_has_the_content_and_the_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(512 * MIB)
        for offset in (0, 100 * MIB, 511 * MIB):
            file.seek(offset)
            file.write(os.urandom(MIB))
    source.chmod(0o640)

    copy_sparse(source, target)

    assert subprocess.run(["cmp", source, target], check=False).returncode == 0
    assert target.stat().st_size == source.stat().st_size
    assert blocks(target) <= blocks(source) + MIB
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
def test_a_file_of_nothing_but_a_hole_is_copied(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(size)

    copy_sparse(source, target)

    assert target.read_bytes() == bytes(size)


def test_a_copy_across_file_systems(tmp_path: Path) -> None:
    """tmpfs has holes and shares no blocks with the disk."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(3 * MIB)
        file.write(os.urandom(2 * MIB + 17))
    fd = os.memfd_create("beside")
    try:
        target = tmp_path / "target"
        through = tmp_path / "through"
        through.symlink_to(f"/proc/self/fd/{fd}")
        os.write(fd, source.read_bytes())
        assert copy_sparse(through, target) is False
        assert target.read_bytes() == source.read_bytes()
    finally:
        os.close(fd)


def test_a_copy_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("new")
    (tmp_path / "target").write_text("old")

    with pytest.raises(FileExistsError):
        copy_sparse(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "old"
