"""The life of one run of a sandbox on its host, as a state machine without I/O.

                           ┌────────PauseFailed────────┐
                           ▼                           │
    STARTING ──Started──▶ RUNNING ──PauseRequested──▶ PAUSING
        │                  │ EndRequested              │ Saved / EndRequested
        │                  ▼ MachineGone               ▼
        └──StartFailed──▶ ENDING ◀─────────────────────┘
           EndRequested    └──Reclaimed──▶ ENDED

A checkpoint copies what runs and lets it go on: RUNNING ──CheckpointRequested──▶ COPYING
──Copied──▶ RUNNING; what is asked for meanwhile waits for its end.

A pause ends the run: its snapshot is what a later run begins with. Such a run is `resumed`, and
when it fails to start the sandbox is paused as before.

`handle(event)` changes the state and returns instructions; the shell around it carries them out
and turns their results into events. Every event is kept, so that a sandbox can tell its story.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


STORY_LINES = 200


class State(enum.Enum):
    """Where a sandbox is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    COPYING = "copying"
    PAUSING = "pausing"
    ENDING = "ending"
    ENDED = "ended"


class Outcome(enum.Enum):
    """Why a sandbox ended."""

    KILLED = "killed"
    EXPIRED = "expired"
    CRASHED = "crashed"
    FAILED = "failed"  # it never ran; whoever asked for it got the error
    PAUSED = "paused"  # its snapshot is on this host


@dataclass(frozen=True, slots=True)
class Started:
    """The VM runs and envd has accepted its identity."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The VM did not come up."""

    reason: str


@dataclass(frozen=True, slots=True)
class EndRequested:
    """Somebody, or its deadline, wants the sandbox to end."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Somebody, or its deadline, wants the sandbox to be paused.

    require_healthy: only when its envd answers.
    """

    reason: str
    files_only: bool = False
    require_healthy: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointRequested:
    """Somebody wants a copy of the running sandbox."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The copy is made, or could not be; the machine runs again, if it lives."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The snapshot of this run is whole and durable; the machine stands still."""


@dataclass(frozen=True, slots=True)
class PauseFailed:
    """There is no snapshot; the machine runs again, if it lives."""

    reason: str


@dataclass(frozen=True, slots=True)
class MachineGone:
    """The VM has ended by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Route, process and network slot are back."""


Event = (
    Started
    | StartFailed
    | EndRequested
    | PauseRequested
    | CheckpointRequested
    | Copied
    | Saved
    | PauseFailed
    | MachineGone
    | Reclaimed
)


@dataclass(frozen=True, slots=True)
class Copy:
    """Stop the machine, copy its memory and disk, let it run; Copied follows."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop the machine and write its snapshot; Saved or PauseFailed follows."""

    files_only: bool
    require_healthy: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """Write the end down before anything is taken away, so that a crash does not forget why."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Close the route, stop the machine, give everything back; Reclaimed follows."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the API server, through the outbox."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the run directory, and with `discard` a snapshot of the sandbox as well."""

    discard: bool = False


Instruction = Copy | Suspend | Record | Reclaim | Report | Forget


class InvalidTransition(Exception):  # noqa: N818 - a defect of ours, not a condition to handle
    """An event that its state does not allow; the message tells the sandbox's story."""


@dataclass(slots=True)
class Lifecycle:
    """State and story of one run. `now` returns unix seconds, for the story alone."""

    sandbox_id: str
    now: Callable[[], float]
    resumed: bool = False
    state: State = State.STARTING
    end: EndRequested | None = None
    pause: PauseRequested | None = None
    gone: MachineGone | None = None
    # Bounded: whoever moves a deadline adds a line, as often as they like.
    story: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=STORY_LINES))

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; what is to be done now, in order."""
        before = self.state
        transition = getattr(self, f"_{before.value}_{_snake(type(event).__name__)}", None)
        if transition is None:
            self.note(f"{before.value}: {event} is not allowed")
            raise InvalidTransition(f"{self.sandbox_id}: " + "; ".join(t for _, t in self.story))
        instructions: list[Instruction] = transition(event)
        self.note(f"{before.value} → {self.state.value}: {_describe(event)}")
        return instructions

    def note(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append((self.now(), text))

    def _starting_started(self, _event: Started) -> list[Instruction]:
        self.state = State.RUNNING
        return []

    def _starting_start_failed(self, event: StartFailed) -> list[Instruction]:
        return self._end(self._not_started(event.reason))

    def _starting_end_requested(self, event: EndRequested) -> list[Instruction]:
        self.end = event
        self.state = State.ENDING
        return [Record(event.outcome, event.reason)]

    def _starting_machine_gone(self, event: MachineGone) -> list[Instruction]:
        return self._end(self._not_started(event.reason))

    def _running_end_requested(self, event: EndRequested) -> list[Instruction]:
        return self._end(event)

    def _running_machine_gone(self, event: MachineGone) -> list[Instruction]:
        return self._end(EndRequested(Outcome.CRASHED, event.reason))

    def _running_pause_requested(self, event: PauseRequested) -> list[Instruction]:
        self.pause, self.gone = event, None
        self.state = State.PAUSING
        return [Suspend(event.files_only, event.require_healthy)]

    def _running_checkpoint_requested(self, _event: CheckpointRequested) -> list[Instruction]:
        self.pause, self.gone = None, None
        self.state = State.COPYING
        return [Copy()]

    def _copying_pause_requested(self, event: PauseRequested) -> list[Instruction]:
        self.pause = self.pause or event
        return []

    def _copying_end_requested(self, event: EndRequested) -> list[Instruction]:
        self.end = event
        self.state = State.ENDING  # once copying has come to its end
        return [Record(event.outcome, event.reason)]

    def _copying_machine_gone(self, event: MachineGone) -> list[Instruction]:
        self.gone = event
        return []

    def _copying_copied(self, _event: Copied) -> list[Instruction]:
        if self.gone is not None:
            return self._end(EndRequested(Outcome.CRASHED, self.gone.reason))
        self.state = State.RUNNING
        return [] if self.pause is None else self._running_pause_requested(self.pause)

    def _ending_copied(self, _event: Copied) -> list[Instruction]:
        return [Reclaim()]

    # Who wants the same joins; a sandbox that is being paused does not expire.
    def _pausing_pause_requested(self, _event: PauseRequested) -> list[Instruction]:
        return []

    def _pausing_end_requested(self, event: EndRequested) -> list[Instruction]:
        if event.outcome is Outcome.EXPIRED:
            return []
        self.end = event
        self.state = State.ENDING  # once the suspension has come to its end
        return [Record(event.outcome, event.reason)]

    # What was saved before the machine died is whole, so this is judged when saving has ended.
    def _pausing_machine_gone(self, event: MachineGone) -> list[Instruction]:
        self.gone = event
        return []

    def _pausing_saved(self, _event: Saved) -> list[Instruction]:
        reason = self.pause.reason if self.pause else ""
        return self._end(EndRequested(Outcome.PAUSED, reason))

    def _pausing_pause_failed(self, _event: PauseFailed) -> list[Instruction]:
        if self.gone is not None:
            return self._end(EndRequested(Outcome.CRASHED, self.gone.reason))
        self.state = State.RUNNING
        return []

    def _ending_saved(self, _event: Saved) -> list[Instruction]:
        return [Reclaim()]

    def _ending_pause_failed(self, _event: PauseFailed) -> list[Instruction]:
        return [Reclaim()]

    # A start is bounded and not broken off half-way: an end asked for meanwhile waits for it.
    def _ending_start_failed(self, _event: StartFailed) -> list[Instruction]:
        return [Reclaim()]

    def _ending_started(self, _event: Started) -> list[Instruction]:
        return [Reclaim()]

    # Whoever asks a second time, or a machine that dies of being stopped, joins the first.
    def _ending_end_requested(self, _event: EndRequested) -> list[Instruction]:
        return []

    def _ending_pause_requested(self, _event: PauseRequested) -> list[Instruction]:
        return []

    def _ending_machine_gone(self, _event: MachineGone) -> list[Instruction]:
        return []

    def _ending_reclaimed(self, _event: Reclaimed) -> list[Instruction]:
        self.state = State.ENDED
        if self.end is None or self.end.outcome is Outcome.FAILED:
            return [Forget()]
        # What has ended for good leaves no snapshot, be it the one that it was resumed from.
        discard = self.end.outcome is not Outcome.PAUSED
        return [Report(self.end.outcome, self.end.reason), Forget(discard)]

    def _ended_end_requested(self, _event: EndRequested) -> list[Instruction]:
        return []

    def _ended_pause_requested(self, _event: PauseRequested) -> list[Instruction]:
        return []

    def _ended_machine_gone(self, _event: MachineGone) -> list[Instruction]:
        return []

    def _not_started(self, reason: str) -> EndRequested:
        if self.resumed:
            return EndRequested(Outcome.PAUSED, f"it could not be resumed: {reason}")
        return EndRequested(Outcome.FAILED, reason)

    def _end(self, end: EndRequested) -> list[Instruction]:
        self.end = end
        self.state = State.ENDING
        return [Record(end.outcome, end.reason), Reclaim()]


def _describe(event: Event) -> str:
    name = type(event).__name__
    outcome = getattr(event, "outcome", None)
    reason = getattr(event, "reason", "")
    return f"{name} {outcome.value if outcome else ''} {reason}".strip()


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
