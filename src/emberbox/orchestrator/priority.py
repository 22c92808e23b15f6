"""VMs that nobody waits for give way to those that somebody does."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emberbox.orchestrator.processes import ProcessIdentity

_BEHIND = 5
"""A third of the weight of the others: behind them, and yet done in time on a host that is busy."""

_STEP = 1.25
"""How much less a process weighs for each step of niceness, sched(7)."""


def lower(process: ProcessIdentity) -> None:
    """Let a process run when the others leave time; nothing happens when it is gone."""
    _set(process.pid, _ours() + _BEHIND)


def raise_again(process: ProcessIdentity) -> None:
    """Let it run as the others do."""
    _set(process.pid, _ours())


def weight_of_ours() -> float:
    """What this program weighs on a processor, of one that nobody has given a niceness."""
    return _STEP ** -_ours()


def _ours() -> int:
    """What an operator gave this program, and VMs get with it."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def _set(pid: int, nice: int) -> None:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are wanted
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(thread), nice)
    # Where the kernel groups tasks by session, niceness counts within the session alone. The file
    # is not there otherwise, and the kernel refuses changes that come too quickly (EAGAIN) to
    # those who are not root.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
