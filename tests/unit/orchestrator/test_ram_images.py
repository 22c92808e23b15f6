"""RAM images are shared while they are in use, and few are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.machines.qemu.driver import RamImages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = [tmp_path / str(number) for number in range(3)]
    for path in made:
        path.write_bytes(bytes(4096))
    return made


async def inode(images: RamImages, path: Path) -> int:
    fd = await images.get(path)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


async def test_clones_share_one_image(paths: list[Path]) -> None:
    images = RamImages()
    assert await inode(images, paths[0]) == await inode(images, paths[0])
    images.forget(paths[0])


async def test_the_image_that_was_not_used_for_longest_is_let_go(paths: list[Path]) -> None:
    images = RamImages(limit=2)
    kept = await images.get(paths[0])
    first, second = os.fstat(kept).st_ino, await inode(images, paths[1])
    assert await inode(images, paths[0]) == first
    await inode(images, paths[2])
    assert await inode(images, paths[0]) == first
    paths[1].unlink()
    with pytest.raises(MachineError, match="cannot be read"):
        await inode(images, paths[1])
    assert second
    os.close(kept)
    for path in paths:
        images.forget(path)
