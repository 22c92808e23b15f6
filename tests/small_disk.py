"""A file system of its own over a directory, of a size that a test changes."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    subprocess.run(["mount", "-o", f"remount,size={size}", directory], check=True)


def fill(directory: Path) -> None:
    """Leave no room in it, by its size: what is there stays."""
    usage = os.statvfs(directory)
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    resize(directory, str(max(used, 65536)))
