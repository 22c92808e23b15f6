"""Starting a program as a user, as cheaply as Python can."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import resource
import signal
import stat
import struct
import subprocess
import termios
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.envd import cgroups
from emberbox.envd.errors import (
    EnvdError,
    InvalidArgumentError,
    LimitReachedError,
    PermissionDeniedError,
)
from emberbox.envd.identity import acting_as

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.envd.users import User

logger = logging.getLogger(__name__)

_MAX_DESCRIPTORS = 65536
"""Every process costs us four, every connection one."""

_EXHAUSTED = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC}
"""Of processes, memory, descriptors, or terminals."""

_TIDY_SECONDS = 1.0
"""Whoever runs a command waits for its end, and often for the next: not for what may be later."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. `terminal` is (columns, rows) of a PTY, None for pipes."""

    argv: list[str]
    user: User
    cwd: str
    env: dict[str, str]
    stdin: bool
    terminal: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Child:
    """A started process and our ends of its pipes, all non-blocking."""

    pid: int
    pidfd: int
    stdin: int | None
    outputs: dict[int, str]
    """File descriptor to "stdout", "stderr" or "pty"."""
    cgroup: Path | None


class Spawner:
    """Starts processes, each in its own session and, where there are cgroups, its own cgroup.

    One after the other on a thread of its own: under load the kernel takes hundreds of
    milliseconds to move a process to a group, and nothing else of envd waits for that.
    """

    def __init__(self, groups: cgroups.Cgroups | None = None) -> None:
        self._groups = groups
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spawner")
        self._ended: list[Path] = []
        self._inherits_protection = cgroups.own_oom_score() < 0
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        """What programs expect; they are given it back."""
        _raise_limit(self._descriptors[1])

    async def start(self, plan: Plan) -> Child:
        """Answers when the process is in its group.

        Raises InvalidArgument-, PermissionDenied- or LimitReachedError if it cannot start.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._start, plan)

    def release(self, child: Child) -> None:
        """The process ended. Its group is removed, and new ones are made, a moment later."""
        if self._groups is not None and child.cgroup is not None:
            self._ended.append(child.cgroup)
            if len(self._ended) == 1:
                asyncio.get_running_loop().call_later(_TIDY_SECONDS, self._tidy, self._groups)

    def _tidy(self, groups: cgroups.Cgroups) -> None:
        ended, self._ended = self._ended, []
        self._thread.submit(self._tidy_groups, groups, ended)

    def close(self) -> None:
        """Does not wait for what runs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self, plan: Plan) -> Child:
        with ExitStack() as ours:  # closed if anything fails
            try:
                pid, stdin, outputs = _execute(plan, ours)
                pidfd = _open_pidfd(pid)
            except (OSError, ValueError) as error:
                raise _cannot_start(plan, error) from error
            ours.pop_all()
        return Child(pid, pidfd, stdin, outputs, self._place(pid))

    def _place(self, pid: int) -> Path | None:
        if self._inherits_protection:
            cgroups.set_oom_score(pid, 0)
        with suppress(ProcessLookupError, PermissionError):  # root of a container may not
            resource.prlimit(pid, resource.RLIMIT_NOFILE, self._descriptors)
        if self._groups is None:
            return None
        try:
            return self._groups.adopt(pid)
        except OSError as error:  # a process outside its group beats none
            logger.warning("cannot move process %d to a cgroup: %s", pid, error)
            return None

    @staticmethod
    def _tidy_groups(groups: cgroups.Cgroups, ended: list[Path]) -> None:
        try:
            groups.tidy(ended)
        except OSError as error:
            logger.warning("cannot make a cgroup: %s", error)


def _raise_limit(hard: int) -> None:
    for limit in (max(hard, _MAX_DESCRIPTORS), hard):
        with suppress(ValueError, PermissionError):  # root of a container may not
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return


def keep_descriptors() -> None:
    """Nothing that we were started with reaches user processes."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:  # the descriptor of the listing itself
            continue


def default_path() -> str:
    """PATH of user processes before their own settings."""
    return os.environ.get("PATH", DEFAULT_PATH)


def _execute(plan: Plan, ours: ExitStack) -> tuple[int, int | None, dict[int, str]]:
    with ExitStack() as theirs, acting_as(plan.user):
        _check_cwd(plan.cwd)
        # Opened as the user, who may then open /dev/stdout or the terminal by name.
        ends = _terminal(plan.terminal, ours, theirs) if plan.terminal else None
        stdin, outputs, (fd0, fd1, fd2) = ends or _pipes(plan.stdin, ours, theirs)
        popen = subprocess.Popen(
            plan.argv,
            stdin=fd0,
            stdout=fd1,
            stderr=fd2,
            cwd=plan.cwd,
            env=plan.env,
            start_new_session=True,
            # Every descriptor of ours is close-on-exec; looking for others costs time.
            close_fds=False,
            # With it, subprocess falls back from vfork to fork. Safe: it takes no lock.
            preexec_fn=_take_terminal if plan.terminal else None,  # noqa: PLW1509
        )
    popen.returncode = 0  # who holds the pidfd waits for it; Popen need not
    return popen.pid, stdin, outputs


def _open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:  # out of descriptors: a process that nobody watches must not stay
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


_Ends = tuple[int | None, dict[int, str], tuple[int, int, int]]


def _pipes(want_stdin: bool, ours: ExitStack, theirs: ExitStack) -> _Ends:
    stdin = None
    if want_stdin:
        fd0, stdin = os.pipe2(os.O_CLOEXEC)
        _keep(ours, stdin)
    else:
        fd0 = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    theirs.callback(os.close, fd0)
    out, fd1 = os.pipe2(os.O_CLOEXEC)
    theirs.callback(os.close, fd1)
    _keep(ours, out)
    err, fd2 = os.pipe2(os.O_CLOEXEC)
    theirs.callback(os.close, fd2)
    _keep(ours, err)
    return stdin, {out: "stdout", err: "stderr"}, (fd0, fd1, fd2)


def _terminal(size: tuple[int, int], ours: ExitStack, theirs: ExitStack) -> _Ends:
    master, slave = os.openpty()
    theirs.callback(os.close, slave)
    _keep(ours, master)
    set_terminal_size(master, *size)
    return master, {master: "pty"}, (slave, slave, slave)


def _keep(ours: ExitStack, fd: int) -> None:
    os.set_blocking(fd, False)
    ours.callback(os.close, fd)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def set_terminal_size(fd: int, columns: int, rows: int) -> None:
    """Tells the terminal, which tells the program by SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _check_cwd(cwd: str) -> None:
    try:
        mode = os.stat(cwd).st_mode  # noqa: PTH116 - on the path of every start
    except PermissionError as error:
        raise PermissionDeniedError(f"permission denied: cwd '{cwd}'") from error
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"cwd '{cwd}' does not exist") from error
    if not stat.S_ISDIR(mode):
        raise InvalidArgumentError(f"cwd '{cwd}' is not a directory")


def _cannot_start(plan: Plan, error: OSError | ValueError) -> EnvdError:
    command = plan.argv[0]
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return LimitReachedError(
            f"cannot start '{command}': {error.strerror}:"
            " too many processes run, or memory is short"
        )
    if isinstance(error, PermissionError) and error.filename == plan.cwd:
        return InvalidArgumentError(f"permission denied: cwd '{plan.cwd}'")
    if isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)
        if error.errno == errno.E2BIG:
            reason = "arguments and environment are too long"
        return InvalidArgumentError(f"cannot start '{command}': {reason}")
    return InvalidArgumentError(f"cannot start '{command}': {error}")
