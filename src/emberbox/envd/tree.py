"""Changes to the directory tree. All functions block and raise OSError or EnvdError."""

from __future__ import annotations

import errno
import os
import stat

from emberbox.envd.errors import AlreadyExistsError, InvalidArgumentError

_DIRECTORY_MODE = 0o755


def make_directories(path: str) -> None:
    """Like `mkdir -p`; new directories belong to whose rights the thread has."""
    missing = []
    while True:
        try:
            os.mkdir(path, _DIRECTORY_MODE)  # noqa: PTH102
        except FileNotFoundError:
            missing.append(path)
            path = os.path.dirname(path)  # noqa: PTH120
            continue
        except FileExistsError:
            _require_directory(path)
        if not missing:
            return
        path = missing.pop()


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
            raise
        _copy_over(source, destination)


def _copy_over(source: str, destination: str) -> None:
    # Not only between mounts: overlayfs refuses to rename a directory of the template's image.
    import shutil  # noqa: PLC0415 - seldom needed, and importing it costs start-up time

    if os.path.isdir(source) and not os.path.islink(source):  # noqa: PTH112, PTH114
        if os.path.lexists(destination):
            os.rmdir(destination)  # noqa: PTH106 - as rename: only an empty one is replaced
        shutil.copytree(source, destination, symlinks=True)
        shutil.rmtree(source)
    else:
        shutil.copy2(source, destination, follow_symlinks=False)
        os.unlink(source)  # noqa: PTH108


def remove(path: str) -> None:
    """Like `rm -rf`: what does not exist is removed already."""
    if path == "/":
        raise InvalidArgumentError("the root directory cannot be removed")
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISDIR(mode):
            os.unlink(path)  # noqa: PTH108
            return
    except (FileNotFoundError, NotADirectoryError):
        return
    import shutil  # noqa: PLC0415 - see above

    shutil.rmtree(path)
