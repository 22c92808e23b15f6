"""Removing whole trees, however deep. The functions block.

By descriptors, so that no link that is put in the way meanwhile is followed; one level open at a
time and no recursion, so that no depth is too much.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Like `rm -rf` of a directory. Raises OSError that names `path` or something below it."""
    tree = _Tree(path)
    try:
        tree.empty()
    except OSError as error:
        if isinstance(error.filename, str | None):
            error.filename = tree.path(error.filename)
        raise
    finally:
        tree.close()
    with suppress(FileNotFoundError):
        os.rmdir(path)  # noqa: PTH106 - text in, text out


@dataclass(slots=True)
class _Level:
    name: str
    identity: tuple[int, int]
    subdirectories: list[str] = field(default_factory=list)


class _Tree:
    """Walks down and up again, with a descriptor of where it is."""

    def __init__(self, path: str) -> None:
        self._levels: list[_Level] = []
        self._root = path
        self._fd = os.open(path, _FLAGS)

    def path(self, name: str | None) -> str:
        """Of something where the walk is."""
        names = [level.name for level in self._levels[1:]]
        return "/".join([self._root, *names, *([name] if name else [])])

    def close(self) -> None:
        os.close(self._fd)

    def empty(self) -> None:
        """Leaves the root alone. What somebody else removes meanwhile is removed."""
        self._clear("")
        while True:
            level = self._levels[-1]
            if level.subdirectories:
                self._descend(level.subdirectories.pop())
            elif len(self._levels) > 1:
                self._ascend()
            else:
                return

    def _descend(self, name: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            self._move_to(os.open(name, _FLAGS, dir_fd=self._fd))
            self._clear(name)

    def _ascend(self) -> None:
        name = self._levels[-1].name
        self._move_to(os.open("..", _FLAGS, dir_fd=self._fd))
        self._levels.pop()
        if _identity(self._fd) != self._levels[-1].identity:
            raise OSError(errno.EBUSY, "directory was moved while it was removed", name)
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=self._fd)

    def _move_to(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd

    def _clear(self, name: str) -> None:
        """Removes all here but the subdirectories."""
        level = _Level(name, _identity(self._fd))
        self._levels.append(level)
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    level.subdirectories.append(entry.name)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=self._fd)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
