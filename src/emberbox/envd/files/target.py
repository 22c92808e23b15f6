"""The file that an upload writes.

Written in place, not beside and renamed: watchers must see CREATE, CHMOD, WRITE and nothing else,
and links and modes of an existing file stay.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from emberbox.envd.errors import InvalidArgumentError, NoSpaceError, from_os_error
from emberbox.envd.files import metadata
from emberbox.envd.tree import make_directories

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from emberbox.envd.users import User
    from emberbox.envd.workers import Workers

_FILE_MODE = 0o644


class Target:
    """One file being written. A failed upload leaves no half file."""

    def __init__(
        self,
        path: str,
        user: User,
        values: Mapping[str, str],
        workers: Workers,
        *,
        announced: int = 0,
    ) -> None:
        self.path = path
        self._user = user
        self._metadata = values
        self._workers = workers
        self._announced = announced
        self._fd = -1
        self._written = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self.discard()

    async def open(self) -> None:
        """Makes the file and its parents. Raises EnvdError."""
        self._fd = await self._workers.run_as(
            self._user, _create, self.path, self._user, self._metadata, self._announced
        )

    async def write(self, data: bytes | memoryview) -> None:
        """Raises NoSpaceError when the disk is full."""
        self._written = True
        try:
            await self._workers.run(_write_all, self._fd, data)
        except OSError as error:
            raise from_os_error(error, self.path) from error

    async def close(self) -> None:
        """The upload is complete. Raises EnvdError for what a file system says only now."""
        fd, self._fd = self._fd, -1
        try:
            await self._workers.run(_finish, fd, self._written)
        except OSError as error:
            raise from_os_error(error, self.path) from error

    async def discard(self) -> None:
        """The upload failed. Devices and pipes stay, of course."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        await self._workers.run_as(self._user, _discard, self.path, fd)


def _create(path: str, user: User, values: Mapping[str, str], announced: int) -> int:
    make_directories(os.path.dirname(path))  # noqa: PTH120
    _check_space(path, announced)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    existed = os.path.exists(path)  # noqa: PTH110
    fd = os.open(path, flags, _FILE_MODE)
    try:
        _prepare(fd, user, values)
    except BaseException:
        os.close(fd)
        if not existed:
            _unlink_target(path)
        raise
    return fd


def _prepare(fd: int, user: User, values: Mapping[str, str]) -> None:
    found = os.fstat(fd)
    # Also when it is the user's already: watchers expect the CHMOD event of it.
    if stat.S_ISREG(found.st_mode):
        with suppress(PermissionError):  # another user's file that this one may write
            os.fchown(fd, user.uid, user.gid)
        metadata.replace(fd, values)
        if found.st_size:
            os.ftruncate(fd, 0)
    elif stat.S_ISDIR(found.st_mode):
        raise InvalidArgumentError("the path is a directory")


def _check_space(path: str, announced: int) -> None:
    """Before an existing file is cut: what cannot fit leaves it as it was."""
    if not announced:
        return
    free = os.statvfs(os.path.dirname(path))  # noqa: PTH120
    available = free.f_bavail * free.f_frsize + _given_back(path)
    if free.f_blocks and announced > available:  # /proc and its like have no size
        raise NoSpaceError(
            f"not enough disk space: {announced} bytes required, {available} bytes available"
        )


def _given_back(path: str) -> int:
    """What the file that is to be overwritten takes now."""
    try:
        return os.stat(path).st_blocks * 512  # noqa: PTH116
    except OSError:
        return 0


def _write_all(fd: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _finish(fd: int, written: bool) -> None:
    try:
        if not written:
            # Nothing to write is an upload, too: watchers expect the WRITE event of it.
            with suppress(OSError):  # of devices
                os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _discard(path: str, fd: int) -> None:
    written = os.fstat(fd)
    with suppress(OSError):  # it failed already
        os.close(fd)
    with suppress(FileNotFoundError):  # or another file's name by now
        if stat.S_ISREG(written.st_mode) and os.path.samestat(written, os.stat(path)):  # noqa: PTH116
            _unlink_target(path)


def _unlink_target(path: str) -> None:
    os.unlink(os.path.realpath(path))  # noqa: PTH108


def described(path: str, values: Mapping[str, str]) -> dict[str, object]:
    """A file that was written, as the endpoints answer."""
    found: dict[str, object] = {"path": path, "name": path.rpartition("/")[2], "type": "file"}
    if values:
        found["metadata"] = values
    return found
