"""Scratch disks: sparse ext4 files, made in milliseconds, and copied without their holes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from emberbox.orchestrator.images.tools import run

if TYPE_CHECKING:
    from pathlib import Path

_FICLONE = 0x40049409
_NO_CLONE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
_NO_COPY_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}
_CHUNK = 1 << 20


def make_scratch(path: Path, size_mb: int) -> None:
    """Make an empty sparse ext4 disk of `size_mb` MiB at `path`, which must not exist.

    It has no journal (a sandbox that crashes is not repaired) and inode tables that count as
    zeroed, since the file is new: nothing is written to them here or in the guest. User
    extended attributes work without an option. Not fsynced. Raises FileExistsError and
    ToolFailedError; no file is left then.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.closing(os.fdopen(fd, "wb")) as file:
            file.truncate(size_mb << 20)
        run(
            ["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-L", "scratch",
             "-O", "^has_journal,^resize_inode",
             "-E", "assume_storage_prezeroed=1,nodiscard", str(path)],
            doing="making a scratch disk",
            remedy="make room on the file system of EMBERBOX_HOME",
        )  # fmt: skip
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def copy_sparse(source: Path, target: Path) -> bool:
    """Copy a file to `target`, which must not exist, keeping its holes.

    Returns True when the file system shared the blocks (a reflink, no data was copied). Not
    fsynced. Raises OSError; no file is left then.
    """
    with source.open("rb", buffering=0) as reader:
        status = os.fstat(reader.fileno())
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(writer, status.st_mode & 0o777)
            if _clone(reader.fileno(), writer):
                return True
            copy_data(reader.fileno(), writer)
            return False
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(writer)


def copy_data(reader: int, writer: int) -> None:
    """Give the empty file `writer` the size and the data of `reader`, keeping its holes.

    Both are descriptors, of files or of memory. Raises OSError.
    """
    size = os.fstat(reader).st_size
    os.ftruncate(writer, size)
    for start, end in data_extents(reader, size):
        _copy_range(reader, writer, start, end)


def _clone(reader: int, writer: int) -> bool:
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def data_extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Start and end of each part of a file, or of memory, that is no hole."""
    parts: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        parts.append((start, end))
    return parts


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        copied = _copy_some(reader, writer, start, end - start)
        if copied == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += copied


def _copy_some(reader: int, writer: int, start: int, count: int) -> int:
    try:
        return os.copy_file_range(reader, writer, count, start, start)
    except OSError as error:
        if error.errno not in _NO_COPY_RANGE:
            raise
    return os.pwrite(writer, os.pread(reader, min(count, _CHUNK), start), start)
