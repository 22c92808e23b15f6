"""Changes to the directory tree. All functions block and raise OSError or EnvdError."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from emberbox.envd.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from emberbox.envd.removal import remove_tree

_DIRECTORY_MODE = 0o755


def make_directories(path: str) -> None:
    """Like `mkdir -p`; new directories belong to whose rights the thread has."""
    missing: list[str] = []
    while not _made(path):
        missing.append(path)
        path = os.path.dirname(path)  # noqa: PTH120
    while missing:
        # Only once more: in /proc, and in a directory that was removed, it fails for ever.
        if not _made(missing[-1]):
            raise NotFoundError(f"directory '{missing[-1]}' cannot be made here")
        missing.pop()


def _made(path: str) -> bool:
    """Whether there is a directory now; False when its parent is missing."""
    try:
        os.mkdir(path, _DIRECTORY_MODE)  # noqa: PTH102
    except FileNotFoundError:
        return False
    except FileExistsError:
        _require_directory(path)
    return True


def make_new_directory(path: str) -> None:
    """For MakeDir: the last part must not exist yet."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        make_directories(path)
        return
    if stat.S_ISDIR(mode):
        raise AlreadyExistsError(f"directory '{path}' already exists")
    raise InvalidArgumentError(f"path '{path}' exists and is not a directory")


def _require_directory(path: str) -> None:
    if not os.path.isdir(path):  # noqa: PTH112
        raise InvalidArgumentError(f"path '{path}' exists and is not a directory")


def move(source: str, destination: str) -> None:
    """Renames, and copies where the file system cannot rename."""
    os.lstat(source)
    make_directories(os.path.dirname(destination))  # noqa: PTH120
    try:
        os.rename(source, destination)  # noqa: PTH104
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise _move_error(error, source, destination) from error
        _copy_over(source, destination)


_MOVE_REFUSALS = {
    errno.EINVAL: "'{source}' cannot be moved into itself",
    errno.EISDIR: "destination '{destination}' is a directory",
    errno.ENOTDIR: "destination '{destination}' is not a directory, but '{source}' is",
    errno.ENOTEMPTY: "destination '{destination}' is a directory that is not empty",
    errno.EEXIST: "destination '{destination}' is a directory that is not empty",
}


def _move_error(error: OSError, source: str, destination: str) -> Exception:
    text = _MOVE_REFUSALS.get(error.errno or 0)
    if text is None:
        return error
    return InvalidArgumentError(text.format(source=source, destination=destination))


def _copy_over(source: str, destination: str) -> None:
    # Not only between mounts: overlayfs refuses to rename a directory of the template's image.
    from emberbox.envd.copying import copy_tree  # noqa: PLC0415 - seldom needed, slow to import

    if os.path.lexists(destination):
        _make_way(source, destination)
    try:
        copy_tree(source, destination)
    except BaseException:
        remove(destination)
        raise
    remove(source)


def _make_way(source: str, destination: str) -> None:
    """As rename: a file takes the place of a file, a directory of an empty one."""
    try:
        if _is_directory(source):
            os.rmdir(destination)  # noqa: PTH106
        else:
            os.unlink(destination)  # noqa: PTH108
    except OSError as error:
        raise _move_error(error, source, destination) from error


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def remove(path: str) -> None:
    """Like `rm -rf`: what does not exist is removed already."""
    if path == "/":
        raise InvalidArgumentError("the root directory cannot be removed")
    with suppress(FileNotFoundError, NotADirectoryError):
        if _is_directory(path):
            remove_tree(path)
        else:
            os.unlink(path)  # noqa: PTH108
