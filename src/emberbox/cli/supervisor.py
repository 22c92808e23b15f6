"""What `up` decides: which program to start, restart or stop, and when to give up. No I/O.

The shell (`emberbox.cli.shell`) turns signals, ends of processes and answers of probes into
events, calls `handle(event, now)` and carries out the instructions it returns; `wake_at()`
says when it must come back with a `Tick`.

    IDLE --Begin--> STARTING --ready--> READY
    STARTING, READY --Exited--> WAITING --backoff over--> STARTING
    STARTING, READY --stop--> STOPPING --Exited--> ENDED
    WAITING --stop--> ENDED
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Policy:
    """Patience of the supervisor. All times in seconds."""

    quick_death: float = 10.0
    """A program that dies this soon after its start, or before it was ready, died quickly."""
    tries_at_first: int = 3
    """Quick deaths in a row before giving up on a program that was never ready."""
    tries: int = 6
    """The same for one that was ready once."""
    backoff: float = 0.25
    backoff_limit: float = 10.0
    answer_within: float = 60.0
    """How long a started program may take to answer its first probe."""
    progress_within: float = 1200.0
    """How long a program that answers "not ready" may show the same status: building images
    downloads packages, which says nothing while a slow mirror sends."""
    end_sandboxes_within: float = 60.0
    stop_within: float = 15.0
    hastened_within: float = 3.0


class State(enum.Enum):
    """Life of one program."""

    IDLE = "idle"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPING = "stopping"
    ENDED = "ended"


class Phase(enum.Enum):
    """What the whole is doing."""

    NEW = "new"
    RUNNING = "running"
    ENDING_SANDBOXES = "ending sandboxes"
    STOPPING = "stopping"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Begin:
    """Nothing of an earlier run is left: start."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A program answered its probe."""

    program: str
    ready: bool
    status: str = ""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process of a program ended; `how` is for people ("exit status 1", "signal 9")."""

    program: str
    how: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Ctrl-C or SIGTERM; the second one hastens."""


@dataclass(frozen=True, slots=True)
class SandboxesEnded:
    """The orchestrator answered the request to end the host, or the request failed."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = Begin | Answered | Exited | StopAsked | SandboxesEnded | Tick


@dataclass(frozen=True, slots=True)
class Start:
    """Start the process of a program, then probe it until it is ready."""

    program: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send SIGTERM."""

    program: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL."""

    program: str


@dataclass(frozen=True, slots=True)
class EndSandboxes:
    """Ask the orchestrator to end the host; answer with `SandboxesEnded`."""


@dataclass(frozen=True, slots=True)
class Announce:
    """All programs are ready for the first time."""


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the person a fact; `passing`: about work in progress, the next one replaces it."""

    text: str
    passing: bool = False


@dataclass(frozen=True, slots=True)
class ShowLog:
    """Show the tail of a program's log."""

    program: str


@dataclass(frozen=True, slots=True)
class Finish:
    """All programs ended: leave with this exit status."""

    status: int


Instruction = Start | Terminate | Kill | EndSandboxes | Announce | Say | ShowLog | Finish


class InvalidTransitionError(Exception):
    """An event that cannot happen in this state; the message ends with the story so far."""


@dataclass(slots=True)
class _Program:
    name: str
    state: State = State.IDLE
    started: float = 0.0
    due: float | None = None
    """When patience or backoff ends, by the clock of `now`."""
    status: str = ""
    deaths: int = 0
    was_ready: bool = False


@dataclass(slots=True)
class Supervisor:
    """The decisions for a fixed list of programs, started and stopped in the order given.

    `host` names the program that can end the sandboxes (None: there is none).
    """

    names: list[str]
    host: str | None
    policy: Policy = field(default_factory=Policy)
    phase: Phase = Phase.NEW
    story: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    _programs: dict[str, _Program] = field(init=False)
    _due: float | None = None
    _exit_status: int = 0
    _announced: bool = False

    def __post_init__(self) -> None:
        self._programs = {name: _Program(name) for name in self.names}

    def state(self, name: str) -> State:
        """State of one program."""
        return self._programs[name].state

    def wake_at(self) -> float | None:
        """When the next `Tick` must come (same clock as `now`); None: not by time."""
        dues = [self._due, *(program.due for program in self._programs.values())]
        return min((due for due in dues if due is not None), default=None)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take one event at monotonic time `now` (seconds) and say what to do, in order."""
        self.story.append(f"{now:.3f} {self.phase.value}: {event}")
        match event:
            case Begin():
                return self._begin(now)
            case Answered():
                return self._answered(event, now)
            case Exited():
                return self._exited(event, now)
            case StopAsked():
                return self._stop_asked(now)
            case SandboxesEnded():
                return self._stop(now) if self.phase is Phase.ENDING_SANDBOXES else []
            case Tick():
                return self._tick(now)

    def _begin(self, now: float) -> list[Instruction]:
        if self.phase is not Phase.NEW:
            raise InvalidTransitionError(self._told("Begin came twice"))
        self.phase = Phase.RUNNING
        return [self._start(program, now) for program in self._programs.values()]

    def _start(self, program: _Program, now: float) -> Start:
        program.state = State.STARTING
        program.started = now
        program.due = now + self.policy.answer_within
        program.status = ""
        return Start(program.name)

    def _answered(self, event: Answered, now: float) -> list[Instruction]:
        program = self._programs[event.program]
        if program.state is not State.STARTING or self.phase is not Phase.RUNNING:
            return []  # the answer was on its way when the program died or was asked to stop
        if event.ready:
            return self._became_ready(program)
        if event.status == program.status:
            return []
        program.status = event.status
        program.due = now + self.policy.progress_within
        return [Say(f"{program.name}: {event.status}", passing=True)]

    def _became_ready(self, program: _Program) -> list[Instruction]:
        again = program.was_ready
        program.state = State.READY
        program.was_ready = True
        program.due = None
        said = Say(f"{program.name} is ready{' again' if again else ''}")
        if self._announced or any(p.state is not State.READY for p in self._programs.values()):
            return [said]
        self._announced = True
        return [said, Announce()]

    def _exited(self, event: Exited, now: float) -> list[Instruction]:
        program = self._programs[event.program]
        if program.state not in {State.STARTING, State.READY, State.STOPPING}:
            raise InvalidTransitionError(self._told(f"{program.name} has no process that can end"))
        if self.phase is not Phase.RUNNING:
            program.state = State.ENDED
            program.due = None
            return self._finish_if_ended()
        return self._died(program, event.how, now)

    def _died(self, program: _Program, how: str, now: float) -> list[Instruction]:
        quick = program.state is State.STARTING or now - program.started < self.policy.quick_death
        program.deaths = program.deaths + 1 if quick else 0
        tries = self.policy.tries if program.was_ready else self.policy.tries_at_first
        if program.deaths >= tries:
            program.state = State.ENDED
            program.due = None
            return self._give_up(program, f"died {program.deaths} times ({how})", now)
        wait = self._backoff(program.deaths)
        program.state = State.WAITING
        program.due = now + wait
        return [Say(f"{program.name} died ({how}); it starts again in {wait:g} s")]

    def _backoff(self, deaths: int) -> float:
        return float(min(self.policy.backoff * 2 ** max(deaths - 1, 0), self.policy.backoff_limit))

    def _give_up(self, program: _Program, reason: str, now: float) -> list[Instruction]:
        self._exit_status = 1
        said = f"{program.name} {reason}: giving up; sandboxes that run are left to the next up"
        return [ShowLog(program.name), Say(said), *self._stop(now)]

    def _stop_asked(self, now: float) -> list[Instruction]:
        match self.phase:
            case Phase.NEW:
                return self._stop(now)
            case Phase.RUNNING:
                return self._end_sandboxes(now)
            case Phase.ENDING_SANDBOXES:
                unwaited = Say("not waiting for sandboxes to end; those left are kept")
                return [unwaited, *self._stop(now, self.policy.hastened_within)]
            case Phase.STOPPING:
                return self._kill_all()
            case Phase.DONE:
                return []

    def _end_sandboxes(self, now: float) -> list[Instruction]:
        host = self._programs.get(self.host) if self.host else None
        if host is None or host.state not in {State.STARTING, State.READY}:
            return self._stop(now)
        self.phase = Phase.ENDING_SANDBOXES
        self._due = now + self.policy.end_sandboxes_within
        for program in self._programs.values():
            self._rest(program)
        return [EndSandboxes()]

    def _rest(self, program: _Program) -> None:
        """Drop what was to happen to a program by time: it is not restarted any more."""
        program.due = None
        if program.state in {State.WAITING, State.IDLE}:
            program.state = State.ENDED

    def _stop(self, now: float, within: float | None = None) -> list[Instruction]:
        self.phase = Phase.STOPPING
        self._due = now + (self.policy.stop_within if within is None else within)
        instructions: list[Instruction] = []
        for program in self._programs.values():
            self._rest(program)
            if program.state in {State.STARTING, State.READY}:
                program.state = State.STOPPING
                instructions.append(Terminate(program.name))
        return [*instructions, *self._finish_if_ended()]

    def _kill_all(self) -> list[Instruction]:
        self._due = None
        return [
            Kill(program.name)
            for program in self._programs.values()
            if program.state is State.STOPPING
        ]

    def _finish_if_ended(self) -> list[Instruction]:
        if self.phase is not Phase.STOPPING:
            return []
        if any(program.state is not State.ENDED for program in self._programs.values()):
            return []
        self.phase = Phase.DONE
        self._due = None
        return [Finish(self._exit_status)]

    def _tick(self, now: float) -> list[Instruction]:
        if self._due is not None and self._due <= now:
            return self._patience_over(now)
        instructions: list[Instruction] = []
        for program in self._programs.values():
            if self.phase is Phase.RUNNING and program.due is not None and program.due <= now:
                instructions += self._program_due(program, now)
        return instructions

    def _patience_over(self, now: float) -> list[Instruction]:
        if self.phase is Phase.ENDING_SANDBOXES:
            return [Say("the orchestrator does not answer: sandboxes are kept"), *self._stop(now)]
        return self._kill_all()

    def _program_due(self, program: _Program, now: float) -> list[Instruction]:
        if program.state is State.WAITING:
            return [self._start(program, now)]
        doing = f" (still: {program.status})" if program.status else ""
        return self._give_up(
            program, f"is not ready after {now - program.started:.0f} s{doing}", now
        )

    def _told(self, what: str) -> str:
        return "\n".join([what, *self.story])
