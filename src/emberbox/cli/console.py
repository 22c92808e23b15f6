"""What people see: everything but data goes to stderr, plain where nobody looks at a terminal."""

from __future__ import annotations

import os
import sys
import time


class Console:
    """Lines on stderr; a passing line is overwritten by the next one on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._colour = self._terminal and "NO_COLOR" not in os.environ
        self._passing = False
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(f"{self._clear()}{self._stamp()}{text}\n")
        self._passing = False

    def passing(self, text: str) -> None:
        """A line about work in progress."""
        if not self._terminal:
            self.say(text)
            return
        self._write(f"{self._clear()}{self._stamp()}{text}"[: _width() + len(self._clear())])
        self._passing = True

    def _clear(self) -> str:
        return "\r\x1b[K" if self._passing else ""

    def _stamp(self) -> str:
        stamp = f"{time.monotonic() - self._begun:7.1f} s  "
        return f"\x1b[2m{stamp}\x1b[0m" if self._colour else stamp

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            # The terminal or the reader of the pipe is gone: the programs must still be
            # stopped in order, so there is nothing to do but to go on silently.
            return


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except OSError:
        return 100
