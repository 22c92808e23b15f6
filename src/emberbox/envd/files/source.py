"""Files that are read for a client. The functions block."""

from __future__ import annotations

import os
import stat

from emberbox.envd.errors import InvalidArgumentError


def open_regular(path: str) -> int:
    """A descriptor to read from. Raises OSError, or InvalidArgumentError for another kind."""
    # Not blocking: a named pipe would hold the thread until somebody writes.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise InvalidArgumentError(f"path '{path}' is {kind}")
