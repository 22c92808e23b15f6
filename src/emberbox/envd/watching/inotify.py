"""The kernel's inotify and statfs, straight on the C library.

A package for inotify would look the C library up by starting programs of the guest.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MODIFY = 0x2
ATTRIB = 0x4
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
UNMOUNT = 0x2000
Q_OVERFLOW = 0x4000
IGNORED = 0x8000
ONLYDIR = 0x0100_0000
DONT_FOLLOW = 0x0200_0000
EXCL_UNLINK = 0x0400_0000
ISDIR = 0x4000_0000

_HEADER = struct.Struct("iIII")
_NAME_MAX = 255
_READ_BYTES = 16 * 1024
"""Some hundreds of events: what is described in one go by a thread."""

_libc = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256
"""More than struct statfs has anywhere; its first field, a long, is the type."""

_NETWORK_TYPES = frozenset(
    {
        0x6969,  # NFS
        0x517B,  # SMB
        0xFE534D42,  # SMB2
        0xFF534D42,  # CIFS
        0x65735546,  # FUSE
    }
)


class Event(NamedTuple):
    """As the kernel tells it. `name` is empty for the watched directory itself."""

    descriptor: int
    mask: int
    cookie: int
    name: str


class Inotify:
    """One queue of the kernel. Watches may be added on any thread."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE when there are too many queues."""
        fd: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0:
            raise _error("")
        self._fd = fd
        # A thread may still be adding watches when the client goes and the queue is closed; the
        # number of the descriptor may then be another file's already.
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._fd

    def add(self, path: str, mask: int) -> int:
        """Watch a directory with the rights of the calling thread. Raises OSError."""
        with self._lock:
            descriptor: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if descriptor < 0:
            raise _error(path)
        return descriptor

    def remove(self, descriptor: int) -> None:
        """A watch that the kernel has removed already is no error."""
        with self._lock:
            _libc.inotify_rm_watch(self._fd, descriptor)

    def read(self) -> tuple[list[Event], bool]:
        """What is queued, not all if it is much, and whether it was all. Does not wait."""
        with self._lock:
            if self._fd < 0:
                return [], True
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return [], True
        return list(_parse(data)), len(data) < _READ_BYTES - _HEADER.size - _NAME_MAX - 1

    def close(self) -> None:
        """The kernel drops the watches. What uses the queue afterwards fails with EBADF."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def on_network(path: str) -> bool:
    """Whether the file system is one whose changes are made elsewhere, too. Raises OSError."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.statfs(os.fsencode(path), buffer):
        raise _error(path)
    kind = ctypes.c_long.from_buffer(buffer).value & 0xFFFF_FFFF
    return kind in _NETWORK_TYPES


def _parse(data: bytes) -> Iterator[Event]:
    position = 0
    while position < len(data):
        descriptor, mask, cookie, length = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        name = data[position : position + length].rstrip(b"\0")
        position += length
        yield Event(descriptor, mask, cookie, os.fsdecode(name))


def _error(path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
