"""Control groups: one for envd, one for everything users run, one in it for each process.

A guest that ran out of memory, CPU or process ids must still answer, so the limits sit on the
users' group and leave a reserve. Without cgroup2 (a development host, a foreign kernel) envd works
without them and says so once.
"""

from __future__ import annotations

import contextlib
import logging
import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

logger = logging.getLogger(__name__)

_CONTROLLERS = ("memory", "cpu", "pids")
_MEMORY_RESERVE = 72 * 1024 * 1024
"""envd's own memory, about 40 MiB, and 32 MiB for the kernel to answer with."""

_SPARE = 8
"""Groups ready for processes to come. Those of a template's snapshot its clones share."""


class Cgroups:
    """The group of user processes below `root`, the mount point of cgroup2.

    Not for two threads at once.
    """

    def __init__(self, root: Path) -> None:
        self._envd = root / "emberbox-envd"
        self._users = root / "emberbox-user"
        self._names = count()
        self._spare: list[Path] = []
        self._busy: set[Path] = set()
        self._own_processes = str(self._envd / "cgroup.procs")

    @classmethod
    def open(cls, root: Path = Path("/sys/fs/cgroup")) -> Cgroups | None:
        """Moves envd into its own group; None, with a log line, where that cannot be done."""
        if not (root / "cgroup.controllers").exists():
            logger.warning("no cgroup2 at %s: processes share envd's limits", root)
            return None
        cgroups = cls(root)
        try:
            cgroups._prepare(root)
        except OSError as error:
            logger.warning("cannot use cgroup2 at %s: %s", root, error)
            return None
        return cgroups

    def _prepare(self, root: Path) -> None:
        available = (root / "cgroup.controllers").read_text().split()
        for controller in _CONTROLLERS:
            if controller in available:
                _try_write(root / "cgroup.subtree_control", f"+{controller}")
            else:
                logger.warning("no %s controller in cgroup2: no limit on it", controller)
        self._envd.mkdir(exist_ok=True)
        self._users.mkdir(exist_ok=True)
        (self._envd / "cgroup.procs").write_text(str(os.getpid()))
        self._set_limits(available)
        for left_over in self._users.glob("p*"):
            with contextlib.suppress(OSError):  # of an earlier envd; still in use
                left_over.rmdir()
        self.tidy()

    def _set_limits(self, available: list[str]) -> None:
        if "memory" in available:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            _try_write(self._users / "memory.max", str(total - min(_MEMORY_RESERVE, total // 4)))
        if "cpu" in available:
            _try_write(self._envd / "cpu.weight", "1000")
        if "pids" in available:
            threads = int(Path("/proc/sys/kernel/threads-max").read_text())
            pids = int(Path("/proc/sys/kernel/pid_max").read_text())
            _try_write(self._users / "pids.max", str(min(threads, pids) * 9 // 10))

    def tidy(self, ended: Collection[Path] = ()) -> None:
        """Removes the groups of processes that ended, and makes some for the next.

        A group stays while something lives that its process started. Raises OSError.
        """
        for group in self._busy | set(ended):
            self._remove(group)
        while len(self._spare) < _SPARE:
            self._spare.append(self._make())

    def _make(self) -> Path:
        group = self._users / f"p{os.getpid()}-{next(self._names)}"
        group.mkdir()
        return group

    def adopt(self, pid: int) -> Path:
        """Moves a process that just started, and what it forked meanwhile, into its own group.

        The process is moved after its exec, so it may have children here already. Processes are
        started one at a time and envd has no other children, so all that is in envd's group
        besides envd belongs to it.
        """
        group = self._spare.pop() if self._spare else self._make()
        target = str(group / "cgroup.procs")
        self._move(pid, target)
        while strays := [p for p in _pids(self._own_processes) if p != os.getpid()]:
            for stray in strays:
                set_oom_score(stray, 0)
                self._move(stray, target)
        return group

    def _remove(self, group: Path) -> None:
        try:
            group.rmdir()
        except FileNotFoundError:
            self._busy.discard(group)
        except OSError:
            self._busy.add(group)
        else:
            self._busy.discard(group)

    @staticmethod
    def _move(pid: int, target: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            write_file(target, str(pid))


def protect_envd() -> None:
    """The kernel kills every other process before envd when memory ends."""
    try:
        write_file("/proc/self/oom_score_adj", "-1000")
    except OSError as error:
        logger.warning("cannot protect envd from the out-of-memory killer: %s", error)


def own_oom_score() -> int:
    """The oom_score_adj of envd, which its children inherit."""
    return int(Path("/proc/self/oom_score_adj").read_text())


def set_oom_score(pid: int, score: int) -> None:
    """Sets oom_score_adj of a process that may be gone already."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        write_file(f"/proc/{pid}/oom_score_adj", str(score))


def write_file(path: str, text: str) -> None:
    """One write to a kernel file; bare system calls, as it is on the path of every start."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _try_write(path: Path, text: str) -> None:
    try:
        write_file(str(path), text)
    except OSError as error:
        logger.warning("cannot write %s to %s: %s", text, path, error)


def _pids(path: str) -> list[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [int(pid) for pid in os.read(fd, 65536).split()]
    finally:
        os.close(fd)
