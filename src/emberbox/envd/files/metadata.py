"""Metadata of files: extended attributes `user.e2b.<key>`. The functions block."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from emberbox.envd.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "user.e2b."
_HEADER = "x-metadata-"
_MAX_KEY = 246
_MAX_TOTAL = 4096


def from_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The `X-Metadata-<key>` headers of an upload. Raises InvalidArgumentError over a limit."""
    found = {
        name.removeprefix(_HEADER): value.encode("latin-1").decode("utf-8", "replace")
        for name, value in headers.items()
        if name.startswith(_HEADER) and name != _HEADER
    }
    for key in found:
        if len(key.encode()) > _MAX_KEY:
            raise InvalidArgumentError(f"metadata key '{key[:32]}…' exceeds {_MAX_KEY} bytes")
    if sum(len(key.encode()) + len(value.encode()) for key, value in found.items()) > _MAX_TOTAL:
        raise InvalidArgumentError(f"metadata exceeds {_MAX_TOTAL} bytes in total")
    return found


def read(path: str) -> dict[str, str]:
    """What is stored at `path`, nothing where that cannot be read."""
    found = {}
    with suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith(_PREFIX):
                value = os.getxattr(path, name, follow_symlinks=False)
                found[name.removeprefix(_PREFIX)] = value.decode("utf-8", "replace")
    return found


def replace(fd: int, values: Mapping[str, str]) -> None:
    """Stores `values` instead of what was there.

    Raises InvalidArgumentError where the file system does not keep them, else OSError.
    """
    with suppress(OSError):
        for name in os.listxattr(fd):
            if name.startswith(_PREFIX):
                os.removexattr(fd, name)
    for key, value in values.items():
        try:
            os.setxattr(fd, _PREFIX + key, value.encode())
        except OSError as error:
            raise (_refused(error, fd) or error) from error


def _refused(error: OSError, fd: int) -> InvalidArgumentError | None:
    if error.errno == errno.ENOTSUP:
        return InvalidArgumentError("this file system keeps no metadata")
    # Said of a full disk, and also of attributes that do not fit in the block that a file has.
    too_much = error.errno == errno.ENOSPC and os.fstatvfs(fd).f_bavail > 0
    if too_much or error.errno == errno.E2BIG:
        return InvalidArgumentError("the metadata is more than this file system keeps with a file")
    return None
