"""Files that are whole or absent: written beside, fsynced, renamed."""

from __future__ import annotations

import ctypes
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


_sync_file_range = ctypes.CDLL(None).sync_file_range
_WRITE = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h


def write_atomically(path: Path, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Replace `path` by `data` so that a crash at any moment leaves the old file or the new one.

    `durable=False` leaves out the fsyncs: enough where the file means nothing after a reboot, as
    a killed process loses nothing that it has written.
    Raises OSError as the file system gives it (ENOSPC among them); nothing is left beside then.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make what a file holds durable. Raises OSError."""
    _sync(path)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a rename is not until its directory is synced."""
    _sync(path)


def sync_together(*paths: Path) -> None:
    """Make files, and the names in directories, durable: all at once, which a journaling file
    system does in one go. Raises OSError when one cannot be."""
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(_sync, paths))


def start_writeback(fd: int, start: int, length: int) -> None:
    """Have the disk begin with a part of a file; only fsync says when, and whether, it is there."""
    offset = ctypes.c_int64
    _sync_file_range(fd, offset(start), offset(length), _WRITE)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
