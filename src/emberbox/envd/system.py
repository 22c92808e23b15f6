"""What /init changes in the guest's system, by system calls: nothing is spawned.

A create waits for all of it, and in software emulation for the translation of all that it uses:
files are opened by their names, without pathlib, text layers and regular expressions.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207


class System:
    """The running guest. `etc` holds the files that name it."""

    def __init__(self, etc: Path = Path("/etc")) -> None:
        self._etc = os.fspath(etc)

    def set_clock(self, nanoseconds: int) -> None:
        """The clock stood still while the machine was paused."""
        time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)

    def add_entropy(self, seed: bytes) -> None:
        """Clones of one snapshot would otherwise draw the same random numbers."""
        fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        try:
            header = struct.pack("ii", len(seed) * 8, len(seed))
            fcntl.ioctl(fd, _RNDADDENTROPY, header + seed)
            fcntl.ioctl(fd, _RNDRESEEDCRNG)
        finally:
            os.close(fd)

    def set_hostname(self, name: str) -> None:
        """Of the kernel, in /etc/hostname, and in /etc/hosts so that sudo can resolve it."""
        socket.sethostname(name)
        self._write("hostname", f"{name}\n".encode())
        try:
            hosts = _content(f"{self._etc}/hosts")
        except OSError:
            hosts = b"127.0.0.1 localhost\n"
        self._write("hosts", _named(hosts, name))

    def renew_machine_id(self) -> None:
        """Two clones must not share it; a guest without one gets none."""
        with suppress(FileNotFoundError):
            self._write("machine-id", f"{os.urandom(16).hex()}\n".encode(), create=False)

    def _write(self, name: str, content: bytes, *, create: bool = True) -> None:
        """Raises FileNotFoundError; what else goes wrong is tolerated."""
        path = f"{self._etc}/{name}"
        try:
            _overwrite(path, content, os.O_CREAT if create else 0)
        except FileNotFoundError:
            raise
        except OSError as error:
            logger.warning("cannot write %s: %s", path, error)


@contextmanager
def tolerated(what: str) -> Iterator[None]:
    """A sandbox with a wrong clock is better than none; the log tells."""
    try:
        yield
    except OSError as error:
        logger.warning("cannot %s: %s", what, error)


def _content(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _named(hosts: bytes, name: str) -> bytes:
    """The lines of /etc/hosts with this name for the address that Debian keeps for it."""
    own = [b"127.0.1.1"]
    lines = [line for line in hosts.splitlines(keepends=True) if line.split(None, 1)[:1] != own]
    if lines and not lines[-1].endswith(b"\n"):
        lines.append(b"\n")
    return b"".join((*lines, f"127.0.1.1 {name}\n".encode()))


def _overwrite(path: str, content: bytes, create: int) -> None:
    """Replace a file's content in place.

    Not truncated first: a clone's new name is as long as the one before, so its blocks stay and
    the file system has next to nothing to do. A create waits for this.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | create, 0o644)
    try:
        os.pwrite(fd, content, 0)
        if os.fstat(fd).st_size != len(content):
            os.ftruncate(fd, len(content))
    finally:
        os.close(fd)
