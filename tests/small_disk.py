"""A file system of its own over a directory, of a size that a test changes."""

from __future__ import annotations

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
