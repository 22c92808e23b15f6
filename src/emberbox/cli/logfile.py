"""Log files of bounded size, kept so by the program that writes them.

`up` opens a program's log with O_APPEND and gives it as stdout and stderr; the program itself
keeps the file small, because it may outlive `up`. The file is copied aside and emptied rather
than renamed: processes that inherited the descriptor (the data proxy's workers) go on writing
to the same file, so their lines are bounded too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 16 * 1024 * 1024
"""Bytes in the file before it is moved aside; one older file of about this size is kept."""

_CHECK_EVERY = 10.0


def open_log(path: Path) -> int:
    """Open for appending (0600: logs name sandboxes and users' addresses)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def rotate(path: Path, limit: int = LIMIT) -> bool:
    """Copy the file to `<name>.1` and empty it when it is larger than `limit` bytes.

    Lines written between the last read of the copy and the emptying (microseconds) are lost.
    """
    if not path.exists() or path.stat().st_size <= limit:
        return False
    older = path.with_name(f"{path.name}.1")
    beside = path.with_name(f".{path.name}.1")
    with path.open("rb+") as current:
        with beside.open("wb") as copy:
            beside.chmod(0o600)
            shutil.copyfileobj(current, copy, 1024 * 1024)
        current.truncate(0)
    beside.rename(older)
    return True


def keep_small(path: Path, limit: int = LIMIT, every: float = _CHECK_EVERY) -> None:
    """Redirect stdout and stderr of this process to `path` and rotate it from a thread."""
    fd = open_log(path)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    rotate(path, limit)
    pause = threading.Event()

    def watch() -> None:
        while not pause.wait(every):
            # A full disk now is no reason to stop watching: the next round tries again.
            with contextlib.suppress(OSError):
                rotate(path, limit)

    threading.Thread(target=watch, name="log-rotation", daemon=True).start()


def tail(path: Path, lines: int = 20) -> list[str]:
    """The last lines of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
