"""Running processes: their output to any number of clients, their input, their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from emberbox.envd.errors import InternalError, NotFoundError
from emberbox.envd.events import data_event, end_event
from emberbox.envd.listener import Listener
from emberbox.envd.spawn import Child, Plan, Spawner, set_terminal_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emberbox._gen.envd.process.process_pb import ProcessConfig, ProcessEvent
    from emberbox.envd.logbook import Logbook

_PIPE_CHUNK = 32 * 1024
_PTY_CHUNK = 16 * 1024
_DRAIN_BYTES = 1024 * 1024
"""The most a pipe can hold (fs.pipe-max-size); what is read after a kill is bounded by it."""
_EXITS_REMEMBERED = 30.0
_REFILL_DELAY = 0.05
_KILL_WAIT = 1.0


class Process:
    """One process. All methods run on the event loop."""

    def __init__(
        self, child: Child, config: ProcessConfig, tag: str | None, on_end: Callable[[], None]
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
        self._listeners: set[Listener] = set()
        self._paused = False
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
        """A queue of all that happens from now on; ends with the end event."""
        listener = Listener(self._resume)
        if self.end is not None:
            listener.put(self.end)
        else:
            self._listeners.add(listener)
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

    def _resume(self) -> None:
        if self._paused and not any(listener.full for listener in self._listeners):
            self._paused = False
            self._watch_outputs()

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
        assert self._wait_status is not None  # noqa: S101 - only called after the exit
        self.end = end_event(self._wait_status)
        self._tell(self.end)
        self._listeners.clear()
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
        self._by_pid: dict[int, Process] = {}

    def __iter__(self) -> Iterator[Process]:
        """Those that have not ended."""
        return (process for process in list(self._by_pid.values()) if process.end is None)

    def start(self, plan: Plan, config: ProcessConfig, tag: str | None) -> Process:
        """Raises InvalidArgumentError or PermissionDeniedError if it cannot start."""
        child = self._spawner.start(plan)
        process = Process(child, config, tag, lambda: self._ended(child, process))
        self._by_pid[process.pid] = process
        self._logbook.started(process.pid, plan, tag)
        asyncio.get_running_loop().call_later(_REFILL_DELAY, self._spawner.refill)
        return process

    def find(self, *, pid: int | None = None, tag: str | None = None) -> Process:
        """By pid or tag, also one that ended lately. Raises NotFoundError."""
        if pid is not None:
            if found := self._by_pid.get(pid):
                return found
            raise NotFoundError(f"process with pid {pid} not found")
        tagged = [process for process in self._by_pid.values() if process.tag == tag]
        if not tagged:
            raise NotFoundError(f"process with tag {tag} not found")
        return next((process for process in tagged if process.end is None), tagged[-1])

    def _ended(self, child: Child, process: Process) -> None:
        self._spawner.release(child)
        self._logbook.ended(process.pid, process.end)
        asyncio.get_running_loop().call_later(_EXITS_REMEMBERED, self._forget, process)

    def _forget(self, process: Process) -> None:
        if self._by_pid.get(process.pid) is process:
            del self._by_pid[process.pid]
