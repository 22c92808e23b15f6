"""Copying trees with owners, modes, times and kinds of files. The functions block.

For moves that the kernel refuses: between file systems, and of directories that an overlay has
from its lower layer. The copies of shutil keep no owners, fail at pipes and sockets, and follow a
link that somebody puts in the place of a file while they work.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = 8 * 1024 * 1024
_NOT_KEPT = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENODATA, errno.EINVAL}
"""What file systems and the rights of the user say to attributes that cannot be copied."""


def copy_tree(source: str, destination: str) -> None:
    """`destination` must not exist. Raises OSError and leaves what was copied."""
    waiting = [(source, destination)]
    directories = []
    while waiting:
        old, new = waiting.pop()
        if stat.S_ISDIR(_copy_entry(old, new)):
            directories.append((old, new))
            names = os.listdir(old)  # noqa: PTH208 - text in, text out
            waiting += [(os.path.join(old, n), os.path.join(new, n)) for n in names]  # noqa: PTH118
    for old, new in reversed(directories):  # their times, after all is in them
        with ExitStack() as stack:
            flags = _READ | os.O_DIRECTORY
            _keep_properties(_open(stack, old, flags), _open(stack, new, flags))


def _copy_entry(old: str, new: str) -> int:
    """The mode of what was copied; of a directory not what is in it."""
    found = os.lstat(old)
    if stat.S_ISREG(found.st_mode):
        _copy_file(old, new)
    elif stat.S_ISDIR(found.st_mode):
        os.mkdir(new, 0o700)  # noqa: PTH102
    else:
        _copy_special(old, new, found)
    return found.st_mode


def _copy_file(old: str, new: str) -> None:
    with ExitStack() as stack:
        source, target = _open(stack, old, _READ), _open(stack, new, _CREATE)
        while os.sendfile(target, source, None, _STEP):
            pass
        _keep_properties(source, target)


def _copy_special(old: str, new: str, found: os.stat_result) -> None:
    """A link, pipe, socket or device."""
    link = stat.S_ISLNK(found.st_mode)
    if link:
        os.symlink(os.readlink(old), new)  # noqa: PTH115, PTH211 - text in, text out
    else:
        os.mknod(new, found.st_mode, found.st_rdev)
    with suppress(PermissionError):  # only root can give files away
        os.chown(new, found.st_uid, found.st_gid, follow_symlinks=False)
    if not link:
        with ExitStack() as stack:  # by the way that follows no link, and opens no device
            fd = _open(stack, new, _NAME)
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(found.st_mode))  # noqa: PTH101
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def _open(stack: ExitStack, path: str, flags: int) -> int:
    fd = os.open(path, flags, 0o600)
    stack.callback(os.close, fd)
    return fd


def _keep_properties(source: int, target: int) -> None:
    found = os.fstat(source)
    with suppress(PermissionError):  # only root can give files away
        os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, stat.S_IMODE(found.st_mode))
    _keep_attributes(source, target)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _keep_attributes(source: int, target: int) -> None:
    try:
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno not in _NOT_KEPT:
            raise
