"""The events of a process, the end in the words that clients of E2B know."""

from __future__ import annotations

import os
import signal
from typing import Literal

from protobuf import Oneof

from emberbox._gen.envd.process.process_pb import ProcessEvent

_SIGNALS: dict[int, str] = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
}


def start_event(pid: int) -> ProcessEvent:
    """The first event of every stream."""
    chosen: Oneof[Literal["start"], ProcessEvent.StartEvent]
    chosen = Oneof("start", ProcessEvent.StartEvent(pid=pid))
    return ProcessEvent(event=chosen)


def data_event(kind: str, data: bytes) -> ProcessEvent:
    """Output; `kind` is "stdout", "stderr" or "pty"."""
    output: Oneof[Literal["stdout"], bytes] = Oneof(kind, data)  # type: ignore[arg-type] # or others
    chosen: Oneof[Literal["data"], ProcessEvent.DataEvent]
    chosen = Oneof("data", ProcessEvent.DataEvent(output=output))
    return ProcessEvent(event=chosen)


def keepalive_event() -> ProcessEvent:
    """Nothing happened, and the process lives."""
    chosen: Oneof[Literal["keepalive"], ProcessEvent.KeepAlive]
    chosen = Oneof("keepalive", ProcessEvent.KeepAlive())
    return ProcessEvent(event=chosen)


def end_event(wait_status: int) -> ProcessEvent:
    """The last event, from a status of waitpid."""
    chosen: Oneof[Literal["end"], ProcessEvent.EndEvent]
    chosen = Oneof("end", _end(wait_status))
    return ProcessEvent(event=chosen)


def _end(wait_status: int) -> ProcessEvent.EndEvent:
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        status = "signal: " + _SIGNALS.get(number, f"signal {number}")
        if os.WCOREDUMP(wait_status):
            status += " (core dumped)"
        return ProcessEvent.EndEvent(exit_code=-1, exited=False, status=status, error=status)
    code = os.WEXITSTATUS(wait_status)
    status = f"exit status {code}"
    error = status if code else None
    return ProcessEvent.EndEvent(exit_code=code, exited=True, status=status, error=error)
