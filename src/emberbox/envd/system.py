"""What /init changes in the guest's system, by system calls: nothing is spawned."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import struct
import time
from contextlib import contextmanager
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
        self._etc = etc

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
        self._write("hostname", name + "\n")
        hosts = self._etc / "hosts"
        try:
            text = hosts.read_text("utf-8", "surrogateescape")
        except OSError:
            text = "127.0.0.1 localhost\n"
        others = re.sub(r"^127\.0\.1\.1\s.*\n?", "", text, flags=re.MULTILINE)
        if others and not others.endswith("\n"):
            others += "\n"
        self._write("hosts", f"{others}127.0.1.1 {name}\n")

    def renew_machine_id(self) -> None:
        """Two clones must not share it; a guest without one gets none."""
        if (self._etc / "machine-id").exists():
            self._write("machine-id", os.urandom(16).hex() + "\n")

    def _write(self, name: str, text: str) -> None:
        try:
            _overwrite(self._etc / name, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            logger.warning("cannot write %s: %s", self._etc / name, error)


@contextmanager
def tolerated(what: str) -> Iterator[None]:
    """A sandbox with a wrong clock is better than none; the log tells."""
    try:
        yield
    except OSError as error:
        logger.warning("cannot %s: %s", what, error)


def _overwrite(path: Path, content: bytes) -> None:
    """Replace a file's content in place.

    Not truncated first: a clone's new name is as long as the one before, so its blocks stay and
    the file system has next to nothing to do. A create waits for this.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(fd, content, 0)
        if os.fstat(fd).st_size != len(content):
            os.ftruncate(fd, len(content))
    finally:
        os.close(fd)
