"""Naming processes, ours too, and ending those that `up` did not start itself."""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.processes import open_pidfd

if TYPE_CHECKING:
    from emberbox.orchestrator.processes import ProcessIdentity

_SHOWN = 60
"""Characters of a command line that fit in one line of an error."""


def how_to_call() -> str:
    """The words that run `emberbox` from anywhere, also by sudo, whose PATH is another."""
    script = Path(sys.executable).with_name("emberbox")
    return shlex.quote(str(script)) if script.exists() else f"{sys.executable} -m emberbox.cli"


def name_of(pid: int) -> str:
    """What a person recognises a process by: its command line, shortened; `?` if unreadable."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    line = " ".join(words).strip()
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def stop(identity: ProcessIdentity, patience: float) -> bool:
    """SIGTERM, and SIGKILL when it has not ended after `patience` seconds; False: it was gone.

    Blocks until the process ended.
    """
    try:
        pidfd = open_pidfd(identity)
    except ProcessLookupError:
        return False
    try:
        send(pidfd, signal.SIGTERM)
        if not _ended_within(pidfd, patience):
            send(pidfd, signal.SIGKILL)
            _ended_within(pidfd, None)
    finally:
        os.close(pidfd)
    return True


def send(pidfd: int, number: signal.Signals) -> None:
    """Signal by pidfd; a process that has ended is no error."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def _ended_within(pidfd: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
