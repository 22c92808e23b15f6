"""ext4 images made from a directory, without mounting anything."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.tools import run

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096
_INODE = 256
_SLACK = 16 << 20


def make_image(tree: Path, image: Path, *, label: str, identity: str) -> None:
    """Write the files of `tree` (owners, modes, links, xattrs) as an ext4 image.

    The image has no journal and little free room: it is only ever mounted read-only. `identity`
    (32 hex digits) becomes its UUID. Raises ToolFailedError.
    """
    size, inodes = _measure(tree)
    with image.open("wb") as file:
        file.truncate(size)
    run(
        ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-I", str(_INODE), "-N", str(inodes),
         "-m", "0", "-O", "^has_journal,^resize_inode,^metadata_csum",
         "-L", label, "-U", str(uuid.UUID(identity)),
         "-E", f"lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed={uuid.UUID(identity)}",
         "-d", str(tree), str(image)],
        doing=f"writing {image.name}",
        remedy="make room on the file system of EMBERBOX_HOME and try again",
    )  # fmt: skip
    # mkfs makes it for a repair that an image does not get; it would show in the guest's /.
    run(
        ["debugfs", "-w", "-R", "rmdir lost+found", str(image)],
        doing=f"finishing {image.name}",
        remedy="make room on the file system of EMBERBOX_HOME and try again",
    )


def _measure(tree: Path) -> tuple[int, int]:
    """Bytes of an image that holds `tree`, and its inodes."""
    blocks, inodes = 0, 1
    for directory, names, files in os.walk(tree):
        inodes += len(names) + len(files)
        blocks += 1 + len(names) // 64
        for name in (*files, *names):
            status = os.lstat(os.path.join(directory, name))  # noqa: PTH118 - a walk of many files
            blocks += -(-status.st_size // BLOCK)
            # A link's target, or a large file's extent tree, may take a block of its own.
            blocks += status.st_size > 64 * BLOCK
    inodes += inodes // 64 + 64
    size = blocks * BLOCK + inodes * _INODE
    return _rounded(size + size // 32 + _SLACK), inodes


def _rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
