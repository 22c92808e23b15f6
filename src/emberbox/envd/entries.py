"""Files and directories as the protocol describes them. All functions block."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from protobuf.wkt.google.protobuf.timestamp_pb import Timestamp

from emberbox._gen.envd.filesystem.filesystem_pb import EntryInfo, FileType
from emberbox.envd.files import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.envd.users import Users

# The years 1 to 9999, to which messages are limited. File systems are not: a tmpfs keeps any time.
_FIRST_SECOND = -62_135_596_800
LAST_SECOND = 253_402_300_799


def describe(path: str, users: Users) -> EntryInfo:
    """Of the path itself; for a symbolic link with the type of its target. Raises OSError."""
    found = os.lstat(path)
    link = stat.S_ISLNK(found.st_mode)
    return EntryInfo(
        name=readable(os.path.basename(path)) or "/",  # noqa: PTH119
        type=_target_type(path) if link else _type(found.st_mode),
        path=readable(path),
        size=found.st_size,
        mode=stat.S_IMODE(found.st_mode) & 0o777,
        permissions=_permissions(found.st_mode),
        owner=users.user_name(found.st_uid),
        group=users.group_name(found.st_gid),
        modified_time=_timestamp(found.st_mtime_ns),
        symlink_target=_target(path) if link else None,
        metadata=metadata.read(path),
    )


def unreadable(path: str) -> EntryInfo:
    """For an entry whose directory may be listed but not entered."""
    return EntryInfo(name=readable(os.path.basename(path)), path=readable(path))  # noqa: PTH119


def walk(root: str, depth: int) -> Iterator[str]:
    """Paths below `root`, parents before children, in the order of their names.

    Directories that cannot be read are listed without what is in them; not so `root`, for which
    OSError is raised.
    """
    levels = [iter(_children(root))]  # no recursion: a tree may be deeper than Python's stack
    while levels:
        path = next(levels[-1], None)
        if path is None:
            levels.pop()
            continue
        yield path
        if len(levels) < depth and not os.path.islink(path) and os.path.isdir(path):  # noqa: PTH114, PTH112
            with suppress(OSError):
                levels.append(iter(_children(path)))


def _children(path: str) -> list[str]:
    # Names, and paths as they were asked for.
    return [os.path.join(path, name) for name in sorted(os.listdir(path))]  # noqa: PTH118, PTH208


def readable(path: str) -> str:
    """Names are bytes; what is not UTF-8 cannot go into a message."""
    return os.fsencode(path).decode("utf-8", "replace")


def _type(mode: int) -> FileType:
    if stat.S_ISDIR(mode):
        return FileType.DIRECTORY
    return FileType.FILE if stat.S_ISREG(mode) else FileType.UNSPECIFIED


def _target_type(path: str) -> FileType:
    try:
        return _type(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return FileType.SYMLINK


def _target(path: str) -> str | None:
    try:
        return readable(os.path.realpath(path))
    except OSError:  # links of /proc may be seen but not read
        return None


def _permissions(mode: int) -> str:
    text = stat.filemode(mode)
    return "L" + text[1:] if stat.S_ISLNK(mode) else text  # as E2B writes it


def _timestamp(nanoseconds: int) -> Timestamp:
    seconds, nanos = divmod(nanoseconds, 10**9)
    if seconds != (nearest := min(max(seconds, _FIRST_SECOND), LAST_SECOND)):
        return Timestamp(seconds=nearest)
    return Timestamp(seconds=seconds, nanos=nanos)
