"""The processes of `up`: carries out what `Supervisor` decides and tells it what happened."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from emberbox.cli import logfile, processes
from emberbox.cli.supervisor import (
    Announce,
    Answered,
    Begin,
    EndSandboxes,
    Event,
    Exited,
    Finish,
    Instruction,
    Kill,
    Policy,
    SandboxesEnded,
    Say,
    ShowLog,
    Start,
    StopAsked,
    Supervisor,
    Terminate,
    Tick,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from emberbox.cli.console import Console
    from emberbox.cli.probes import Answer, Probe
    from emberbox.cli.upfile import UpFile

_PROBE_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class Program:
    """One program that `up` keeps running."""

    name: str
    argv: Sequence[str]
    log: Path
    probe: Probe


class Host(Protocol):
    """Ends the sandboxes of this machine."""

    async def end(self, say: Callable[[str], None]) -> None:
        """Say how many sandboxes end, end them, and never raise: `up` stops in any case."""


@dataclass(slots=True)
class _Process:
    popen: subprocess.Popen[bytes]
    pidfd: int
    watch: asyncio.Task[None]


@dataclass(slots=True)
class Shell:
    """Runs the programs until a signal ends them; `announce` is called when all are ready."""

    programs: Sequence[Program]
    host: Host
    host_name: str | None
    record: UpFile
    console: Console
    announce: Callable[[], None]
    policy: Policy = field(default_factory=Policy)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    _processes: dict[str, _Process] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None
    _supervisor: Supervisor = field(init=False)
    _by_name: dict[str, Program] = field(init=False)
    _finished: asyncio.Future[int] = field(init=False)

    async def run(self) -> int:
        """Start all, keep them running, and return the exit status once all ended."""
        loop = asyncio.get_running_loop()
        self._by_name = {program.name: program for program in self.programs}
        self._supervisor = Supervisor(list(self._by_name), self.host_name, self.policy)
        self._finished = loop.create_future()
        for number in _stop_signals():
            loop.add_signal_handler(number, self._handle, StopAsked())
        self._handle(Begin())
        try:
            return await self._finished
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        # Empty unless an error of our own ended `up`: then nothing would look after them.
        for name in self._processes:
            self._signal(name, signal.SIGTERM)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _handle(self, event: Event) -> None:
        """Feed one event; an error in carrying it out ends `up` instead of being lost."""
        if self._finished.done():
            return
        try:
            instructions = self._supervisor.handle(event, self._now())
            for instruction in instructions:
                self._carry_out(instruction)
        except Exception as error:  # noqa: BLE001 - this is the top of every callback
            if not self._finished.done():
                self._finished.set_exception(error)
        self._set_timer()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wake_at = self._supervisor.wake_at()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(wake_at, self._handle, Tick()) if wake_at else None

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Start(program):
                self._start(self._by_name[program])
            case Terminate(program):
                self._signal(program, signal.SIGTERM)
            case Kill(program):
                self.console.say(f"{program} does not end: killing it")
                self._signal(program, signal.SIGKILL)
            case EndSandboxes():
                self._spawn(self._end_sandboxes())
            case Announce():
                self.announce()
            case Say(text, passing):
                (self.console.passing if passing else self.console.say)(text)
            case ShowLog(program):
                self._show_log(self._by_name[program])
            case Finish(status):
                self._finished.set_result(status)

    def _start(self, program: Program) -> None:
        logfile.rotate(program.log)
        log = logfile.open_log(program.log)
        try:
            # A session of its own: a Ctrl-C or hang-up of the terminal is for `up` alone.
            popen = subprocess.Popen(
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self.record.started(program.name, popen.pid)
        pidfd = os.pidfd_open(popen.pid)
        watch = self._spawn(self._watch(program))
        self._processes[program.name] = _Process(popen, pidfd, watch)
        asyncio.get_running_loop().add_reader(pidfd, self._ended, program.name)

    def _ended(self, name: str) -> None:
        process = self._processes.pop(name)
        asyncio.get_running_loop().remove_reader(process.pidfd)
        os.close(process.pidfd)
        process.watch.cancel()
        status = process.popen.wait()
        self.record.ended(name)
        self._handle(Exited(name, _how(status, logfile.tail(self._by_name[name].log, 1))))

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self._processes.get(name)
        if process is not None:
            processes.send(process.pidfd, number)

    async def _watch(self, program: Program) -> None:
        while True:
            answer: Answer | None = await program.probe()
            if answer is not None:
                self._handle(Answered(program.name, answer.ready, answer.status))
                if answer.ready:
                    return
            await asyncio.sleep(_PROBE_EVERY)

    async def _end_sandboxes(self) -> None:
        await self.host.end(self.console.say)
        self._handle(SandboxesEnded())

    def _show_log(self, program: Program) -> None:
        self.console.say(f"the end of {program.log}:")
        for line in logfile.tail(program.log):
            self.console.say(f"  {line}")

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._finished.done():
            return
        error = task.exception()
        if error is not None:
            self._finished.set_exception(error)


def _stop_signals() -> list[signal.Signals]:
    """SIGHUP stops too, unless `nohup` asked to ignore it."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def _how(status: int, last_line: list[str]) -> str:
    """How a process ended, with its own word for it when it said one (see StartupError)."""
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    reason = "".join(line for line in last_line if line.startswith("emberbox: "))
    return f"exit status {status}{reason and ', '}{reason.removeprefix('emberbox: ')}"
