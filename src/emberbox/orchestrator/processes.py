"""Processes that outlive the one that started them, named so that a reused pid is never mistaken.

A pid alone says nothing after a restart. With the start time (in clock ticks since boot) and the
boot's id it names one process for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberbox.orchestrator import pidfd_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_START_TIME_FIELD = 21
"""Index of `starttime` in /proc/PID/stat, proc(5), counted from the pid."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of one boot. `start_time_ticks` is in clock ticks since boot."""

    pid: int
    start_time_ticks: int
    boot_id: str

    def to_json(self) -> dict[str, Any]:
        """The form kept in records."""
        return {
            "pid": self.pid,
            "start_time_ticks": self.start_time_ticks,
            "boot_id": self.boot_id,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ProcessIdentity:
        """Read what `to_json` wrote. Raises KeyError when a field is missing."""
        return cls(data["pid"], data["start_time_ticks"], data["boot_id"])


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessIdentity:
    """Name a live process. Raises ProcessLookupError when there is none, or it is a zombie."""
    state, start_time = _read_stat(pid)
    if state == "Z":
        raise ProcessLookupError(pid)
    return ProcessIdentity(pid, start_time, boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs."""
    try:
        return identify(identity.pid) == identity
    except ProcessLookupError:
        return False


def open_pidfd(identity: ProcessIdentity) -> int:
    """A descriptor that stays with the process. Raises ProcessLookupError when it is gone.

    The identity is checked after the descriptor is open: from then on it cannot change. A zombie
    counts as there: while its other threads are ending they still hold memory and devices.
    """
    fd = os.pidfd_open(identity.pid)
    if _is_there(identity):
        return fd
    os.close(fd)
    raise ProcessLookupError(identity.pid)


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal that very process; False when it is gone."""
    try:
        fd = open_pidfd(identity)
    except ProcessLookupError:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def resident_mb(pid: int) -> int:
    """Memory that a process has touched, what it shares with others included, in MiB."""
    total = 0
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("RssAnon", "RssShmem", "VmSwap"):
                total += int(rest.split()[0])
    return total // 1024


async def wait_gone(identity: ProcessIdentity) -> None:
    """Return when all of the process has ended, whoever its parent is; reap it when that is us."""
    with contextlib.suppress(ProcessLookupError):
        async with _ended(identity):
            _reap(identity.pid)


async def exit_status(identity: ProcessIdentity) -> int | None:
    """The same, and how it ended: its exit status, negative for a signal.

    Who is not its parent waits for the parent's reaping as well. None when nobody knows.
    """
    with contextlib.suppress(ProcessLookupError):
        async with _ended(identity) as pidfd:
            status = _reap(identity.pid)
            return await pidfd_info.exit_status(pidfd) if status is None else status
    return None


def how_it_ended(status: int | None) -> str:
    """An exit status for people."""
    if status is None:
        return "nobody knows how"
    if status >= 0:
        return f"exit status {status}"
    known = -status in set(signal.Signals)
    return f"killed by {signal.Signals(-status).name if known else f'signal {-status}'}"


async def kill_and_wait(identity: ProcessIdentity) -> None:
    """SIGKILL and wait until the process is gone."""
    send_signal(identity, signal.SIGKILL)
    await wait_gone(identity)


@contextlib.asynccontextmanager
async def _ended(identity: ProcessIdentity) -> AsyncIterator[int]:
    """Wait for its end; its pidfd. Raises ProcessLookupError when it is gone before."""
    pidfd = open_pidfd(identity)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
        yield pidfd
    finally:
        os.close(pidfd)


def _is_there(identity: ProcessIdentity) -> bool:
    try:
        _, start_time = _read_stat(identity.pid)
    except ProcessLookupError:
        return False
    return ProcessIdentity(identity.pid, start_time, boot_id()) == identity


def _read_stat(pid: int) -> tuple[str, int]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    # The command name may hold spaces and parentheses, so fields are counted after its last one.
    fields = ["", "", *stat[stat.rindex(")") + 2 :].split()]
    return fields[2], int(fields[_START_TIME_FIELD])


def _reap(pid: int) -> int | None:
    with contextlib.suppress(ChildProcessError):
        reaped, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if reaped else None
    return None
