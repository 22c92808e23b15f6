"""Copying trees with owners, modes, times and kinds of files. The functions block.

For moves that the kernel refuses: between file systems, and of directories that an overlay has
from its lower layer. The copies of shutil keep no owners and fail at pipes and sockets.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress


def copy_tree(source: str, destination: str) -> None:
    """`destination` must not exist. Raises OSError and leaves what was copied."""
    waiting = [(source, destination)]
    directories = []
    while waiting:
        old, new = waiting.pop()
        if stat.S_ISDIR(_copy_entry(old, new)):
            directories.append((old, new))
            names = os.listdir(old)  # noqa: PTH208 - text in, text out
            waiting += [(os.path.join(old, n), os.path.join(new, n)) for n in names]  # noqa: PTH118
    for old, new in reversed(directories):  # their times, after all is in them
        shutil.copystat(old, new)


def _copy_entry(old: str, new: str) -> int:
    """The mode of what was copied; of a directory not what is in it."""
    found = os.lstat(old)
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        os.mkdir(new, 0o700)  # noqa: PTH102
    elif stat.S_ISLNK(mode) or stat.S_ISREG(mode):
        shutil.copyfile(old, new, follow_symlinks=False)
    else:
        os.mknod(new, mode, found.st_rdev)
    with suppress(PermissionError):  # only root can give files away
        os.chown(new, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISDIR(mode):
        shutil.copystat(old, new, follow_symlinks=False)
    return mode
