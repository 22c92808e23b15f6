"""Keeps a worker's own log file small: the worker outlives whoever opened it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

LIMIT = 4 * 1024 * 1024
"""Bytes in the file before it is moved aside; one older file of about this size is kept."""


def rotate_stderr(limit: int = LIMIT) -> bool:
    """Copy the file behind stderr to `<name>.1` and empty it when it is larger than `limit`.

    Does nothing when stderr is no regular file. The file is appended to, so it can be emptied
    under its writers.
    """
    status = os.fstat(2)
    if not stat.S_ISREG(status.st_mode) or status.st_size <= limit:
        return False
    path = Path("/proc/self/fd/2").readlink()
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.ftruncate(2, 0)
    return True
