"""Running processes: their output to any number of clients, their input, their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

from emberbox._gen.envd.process.process_pb import ProcessConfig
from emberbox.envd.errors import InternalError, LimitReachedError, NotFoundError
from emberbox.envd.events import data_event, end_event
from emberbox.envd.listener import Listener, Listeners
from emberbox.envd.spawn import Child, Plan, Spawner, set_terminal_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emberbox._gen.envd.process.process_pb import ProcessEvent
    from emberbox.envd.logbook import Logbook

_PIPE_CHUNK = 32 * 1024
_PTY_CHUNK = 16 * 1024
_DRAIN_BYTES = 1024 * 1024
"""The most a pipe can hold (fs.pipe-max-size); what is read after a kill is bounded by it."""
_EXITS_REMEMBERED = 30.0
_KILL_WAIT = 1.0

MAX_PROCESSES: Final = 1024
"""That run at once. The kernel's limit on process ids comes first where memory is small."""

MAX_EXITS_REMEMBERED: Final = 4096

STALL_PATIENCE: Final = 5.0
"""Seconds that a client may take nothing while it keeps other clients of the process waiting."""


_NO_CONFIG = ProcessConfig()


class Process:
    """One process. All methods run on the event loop.

    Output is read as fast as its slowest client takes it, so none of it is lost and little of it
    is held. With one exception: a client that takes nothing at all for STALL_PATIENCE, while
    another has room, is left behind.
    """

    def __init__(
        self,
        child: Child,
        config: ProcessConfig,
        tag: str | None,
        listeners: Listeners,
        on_end: Callable[[], None],
    ) -> None:
        self.pid = child.pid
        self.config = config
        self.tag = tag
        self.expired = False
        """Whether its time limit ended it."""
        self.end: ProcessEvent | None = None
        self._child = child
        self._on_end = on_end
        self._outputs = dict(child.outputs)
        self._stdin = child.stdin
        self._writing = asyncio.Lock()
        self._writer_ready: asyncio.Future[None] | None = None
        self._all_listeners = listeners
        self._listeners: set[Listener] = set()
        self._paused = False
        self._stall_check: asyncio.TimerHandle | None = None
        self._signalled = False
        self._wait_status: int | None = None
        self._time_limit: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(child.pidfd, self._exited)
        self._watch_outputs()

    @property
    def has_terminal(self) -> bool:
        """Whether it was started with a PTY."""
        return "pty" in self._child.outputs.values()

    @property
    def exited(self) -> bool:
        """Whether the process itself is gone; its output may be held open by its children."""
        return self._wait_status is not None

    # Output

    def listen(self) -> Listener:
        """A queue of all that happens from now on; ends with the end event.

        Raises LimitReachedError when there are too many in the sandbox.
        """
        listener = Listener(self._all_listeners, self._resume)
        if self.end is not None:
            listener.put(self.end)
        else:
            self._listeners.add(listener)
            if self._paused:
                self._check_stalls_later()
        return listener

    def forget(self, listener: Listener) -> None:
        """The client is gone; the process no longer waits for it."""
        listener.close()
        self._listeners.discard(listener)
        self._resume()

    def _watch_outputs(self) -> None:
        for fd, kind in self._outputs.items():
            self._loop.add_reader(fd, self._readable, fd, kind)

    def _readable(self, fd: int, kind: str) -> None:
        if self._read(fd, kind) is None:
            self._close_output(fd)
            if not self._outputs and self.exited:
                self._finish()
        if not self._paused and any(listener.full for listener in self._listeners):
            self._paused = True
            for output in self._outputs:
                self._loop.remove_reader(output)
            self._check_stalls_later()

    def _resume(self) -> None:
        if self._paused and not any(listener.full for listener in self._listeners):
            self._paused = False
            self._watch_outputs()
            self._forget_stalls()

    def _check_stalls_later(self) -> None:
        if len(self._listeners) < 2 or self._stall_check is not None:
            return
        seen = {listener: listener.taken for listener in self._listeners if listener.full}
        self._stall_check = self._loop.call_later(STALL_PATIENCE, self._check_stalls, seen)

    def _check_stalls(self, seen: dict[Listener, int]) -> None:
        """Leaves those behind that took nothing, unless all clients are alike."""
        self._stall_check = None
        if any(not listener.full for listener in self._listeners):
            for listener, taken in seen.items():
                if listener.full and listener.taken == taken:
                    self._listeners.discard(listener)
                    listener.leave_behind()
        self._resume()
        if self._paused:
            self._check_stalls_later()

    def _forget_stalls(self) -> None:
        if self._stall_check is not None:
            self._stall_check.cancel()
            self._stall_check = None

    def _read(self, fd: int, kind: str) -> int | None:
        """Hands one piece on. 0 when there is nothing now, None at the end."""
        try:
            data = os.read(fd, _PTY_CHUNK if kind == "pty" else _PIPE_CHUNK)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: the last holder closed the terminal
            return None
        if not data:
            return None
        if self._listeners:
            self._tell(data_event(kind, data), len(data))
        return len(data)

    def _tell(self, event: ProcessEvent, size: int = 0) -> None:
        for listener in self._listeners:
            listener.put(event, size)

    def _close_output(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._outputs[fd]
        if fd != self._stdin:
            os.close(fd)

    # The end

    def limit_time(self, seconds: float) -> None:
        """Kills the process after that time, whether or not a client still listens."""
        self._time_limit = self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Raises NotFoundError when the process has ended."""
        if self.end is not None:
            raise NotFoundError(f"process with pid {self.pid} not found")
        self._signalled = True
        if self.exited:  # only its output is left, held open by its children
            self._finish()
            return
        signal.pidfd_send_signal(self._child.pidfd, number)

    async def kill(self) -> None:
        """Sends SIGKILL and answers when the process is gone, or not within a second."""
        self.send_signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _KILL_WAIT)

    def _exited(self) -> None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return
        self._wait_status = status
        self._loop.remove_reader(self._child.pidfd)
        os.close(self._child.pidfd)
        # Whoever was asked to end, or was killed, ends for its clients at once: children that
        # keep the pipes open may live for hours. So does a terminal, when its shell is gone.
        if self._signalled or os.WIFSIGNALED(status) or self.has_terminal or not self._outputs:
            self._finish()

    def _finish(self) -> None:
        for fd, kind in list(self._outputs.items()):
            left = _DRAIN_BYTES
            while left > 0 and (got := self._read(fd, kind)):
                left -= got
            self._close_output(fd)
        self.close_stdin()
        if self._time_limit is not None:
            self._time_limit.cancel()
        self._forget_stalls()
        assert self._wait_status is not None  # noqa: S101 - only called after the exit
        self.end = end_event(self._wait_status)
        self._tell(self.end)
        self._listeners.clear()
        self.config = _NO_CONFIG  # arguments and environment may be megabytes
        self._ended.set()
        self._on_end()

    # Input

    async def write(self, data: bytes, *, terminal: bool) -> None:
        """Answers when the process, or the pipe to it, has taken all of it.

        Raises InternalError when this kind of input is not open.
        """
        if terminal != self.has_terminal:
            raise InternalError(
                "the process has no pty"
                if terminal
                else "the process has a pty: send its input as pty"
            )
        async with self._writing:
            left = memoryview(data)
            while left:
                left = left[await self._write_some(left) :]

    async def _write_some(self, data: memoryview) -> int:
        if self._stdin is None or self.end is not None:
            raise InternalError("stdin is not enabled or closed")
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            await self._writable(self._stdin)
            return 0
        except OSError as error:
            raise InternalError(f"error writing to stdin: {error.strerror}") from error

    async def _writable(self, fd: int) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(fd, _set, ready)
        self._writer_ready = ready
        try:
            await ready
        finally:
            if self._stdin == fd:
                self._loop.remove_writer(fd)

    def close_stdin(self) -> None:
        """The process reads end-of-file. Closing twice is allowed."""
        if self._stdin is None:
            return
        self._loop.remove_writer(self._stdin)
        if self._writer_ready is not None:
            _set(self._writer_ready)  # the writer finds stdin closed
        os.close(self._stdin)
        self._stdin = None

    def resize(self, columns: int, rows: int) -> None:
        """Raises InternalError for a process without a terminal."""
        if not self.has_terminal:
            raise InternalError("the process has no pty")
        if self._stdin is not None:
            set_terminal_size(self._stdin, columns, rows)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Processes:
    """All processes that envd started, and for 30 s those that ended."""

    def __init__(self, spawner: Spawner, logbook: Logbook) -> None:
        self._spawner = spawner
        self._logbook = logbook
        self._listeners = Listeners()
        self._running = 0
        self._exits: dict[Process, asyncio.TimerHandle] = {}
        self._by_pid: dict[int, Process] = {}

    def __iter__(self) -> Iterator[Process]:
        """Those that have not ended."""
        return (process for process in list(self._by_pid.values()) if process.end is None)

    async def start(self, plan: Plan, config: ProcessConfig, tag: str | None) -> Process:
        """Raises InvalidArgument-, PermissionDenied- or LimitReachedError if it cannot start."""
        if self._running >= MAX_PROCESSES:
            raise LimitReachedError(f"{MAX_PROCESSES} processes run: end some of them first")
        self._listeners.check_room()  # whoever starts it will follow it
        self._running += 1
        try:
            child = await self._spawner.start(plan)
        except BaseException:
            self._running -= 1
            raise
        process = Process(child, config, tag, self._listeners, lambda: self._ended(child, process))
        self._by_pid[process.pid] = process
        self._logbook.started(process.pid, plan, tag)
        return process

    def find_running(self, *, pid: int | None = None, tag: str | None = None) -> Process:
        """By pid or tag. Raises NotFoundError."""
        process = self.find(pid=pid, tag=tag)
        if process.end is not None:
            raise _not_found(pid, tag)
        return process

    def find(self, *, pid: int | None = None, tag: str | None = None) -> Process:
        """By pid or tag, also one that ended lately. Raises NotFoundError."""
        if pid is not None:
            if found := self._by_pid.get(pid):
                return found
            raise _not_found(pid, tag)
        tagged = [process for process in self._by_pid.values() if process.tag == tag]
        if not tagged:
            raise _not_found(pid, tag)
        return next((process for process in tagged if process.end is None), tagged[-1])

    def close(self) -> None:
        """At the end of envd, when its event loop has ended. Processes go on."""
        self._spawner.close()

    def _ended(self, child: Child, process: Process) -> None:
        self._running -= 1
        self._spawner.release(child)
        self._logbook.ended(process.pid, process.end)
        later = asyncio.get_running_loop().call_later(_EXITS_REMEMBERED, self._forget, process)
        self._exits[process] = later
        if len(self._exits) > MAX_EXITS_REMEMBERED:
            oldest = next(iter(self._exits))
            self._exits[oldest].cancel()
            self._forget(oldest)

    def _forget(self, process: Process) -> None:
        del self._exits[process]
        if self._by_pid.get(process.pid) is process:
            del self._by_pid[process.pid]


def _not_found(pid: int | None, tag: str | None) -> NotFoundError:
    named = f"pid {pid}" if pid is not None else f"tag {tag}"
    return NotFoundError(f"process with {named} not found")
