"""What a VMM and its guest print: pipes that the kernel bounds, whoever reads them or not.

A pipe holds 64 KiB; what comes when it is full is dropped by the VMM, which never waits for a
reader. No disk fills, and with no orchestrator there nothing is lost but what does not fit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PIPE_BYTES = 65536


def make(path: Path, owner: int) -> None:
    """A new pipe for a VMM of that uid. Raises OSError."""
    os.mkfifo(path, 0o600)
    os.chown(path, owner, owner)


class Pipe:
    """The reading end. What was read is kept, the last 64 KiB of it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._kept = b""

    def read(self) -> str:
        """All that is known."""
        self._drain()
        return self._kept.decode(errors="replace")

    def take_lines(self) -> list[bytes]:
        """The whole lines that are known, which are forgotten then."""
        self._drain()
        *lines, self._kept = self._kept.split(b"\n")
        return lines

    def make_room(self) -> None:
        """Read what is there when it is much: until then the next orchestrator finds it."""
        if self._waiting() > PIPE_BYTES // 2:
            self._drain()

    def close(self) -> None:
        """Stop reading; the pipe and what is in it stay while a VMM has it open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _drain(self) -> None:
        # At most what a pipe holds: one who writes without end is not followed.
        with contextlib.suppress(OSError):
            new = os.read(self._fd, PIPE_BYTES)
            self._kept = (self._kept + new)[-PIPE_BYTES:]

    def _waiting(self) -> int:
        with contextlib.suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0])
        return 0


class Output:
    """The three pipes of one VMM: the guest's console, the VMM's log, its metrics."""

    def __init__(self, console: Path, log: Path, metrics: Path) -> None:
        with contextlib.ExitStack() as opened:
            self.console, self.log, self.metrics = (
                _closed_on_error(opened, Pipe(path)) for path in (console, log, metrics)
            )
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Stop reading all of them."""
        self._opened.close()


def _closed_on_error(opened: contextlib.ExitStack, pipe: Pipe) -> Pipe:
    opened.callback(pipe.close)
    return pipe
