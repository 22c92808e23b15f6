"""A file system of its own over a directory, of a size that a test changes."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INODES = 1 << 20
_LEAST = 65536
"""Bytes: a size of 0 is none."""


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    """While the block runs."""
    subprocess.run(["mount", "-t", "tmpfs", "small", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def resize(directory: Path, size: str) -> None:
    """To a size as tmpfs writes it: 64k, 1g."""
    _remount(directory, size, _INODES)


def fill(directory: Path) -> None:
    """Leave no room in it, not even for one small file more: what is there stays."""
    usage = os.statvfs(directory)
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    _remount(directory, str(max(used, _LEAST)), usage.f_files - usage.f_ffree)


def _remount(directory: Path, size: str, inodes: int) -> None:
    options = f"remount,size={size},nr_inodes={inodes}"
    subprocess.run(["mount", "-o", options, directory], check=True)
