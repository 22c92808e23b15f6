"""The life of a sandbox record: states, events, one function per edge, no I/O.

            Refused                       Reported / Lost
   creating ────────► failed     running ───────────────► killed, expired, crashed
      │ Started                     ▲ │ ▲ │ PauseAsked
      ├─────────────────────────────┘ │ │ └───────► pausing ──PauseRefused──► running
      │                               │ │ Started      │ Paused
      │                               │ └── resuming ◄─┼────────── paused
      │                               │         └──────┴─────────►   ▲ ResumeFailed, Paused
      │ KillAsked, OutcomeUnknown     ▼ KillAsked (from all of these)
      └──────────────────────────► killing ──EndConfirmed, Reported, Lost──► killed, expired, …

`handle` says what an event makes of a record. The shell (`records.keeper`) writes it by
compare-and-set on (state, execution id) and carries out the instructions. An event of another
execution changes nothing: it speaks of a run that is over. A resume begins a new execution.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class State(StrEnum):
    """Stored as they are named."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    KILLING = "killing"
    KILLED = "killed"
    EXPIRED = "expired"
    CRASHED = "crashed"
    FAILED = "failed"


LIVE = frozenset(State) - {State.KILLED, State.EXPIRED, State.CRASHED, State.FAILED}
"""States of what is not over: its host holds something of it."""

COUNTED = LIVE - {State.PAUSED}
"""States that hold the quota of what runs. A paused sandbox holds its disk alone."""

SHOWN_RUNNING = frozenset({State.CREATING, State.RUNNING, State.RESUMING})
"""States that clients see as running. What is being started is among them because "running" is
written after create and resume have answered: their callers may ask about it first."""

SHOWN_PAUSED = frozenset({State.PAUSING, State.PAUSED})
"""States that clients see as paused."""

VISIBLE = SHOWN_RUNNING | SHOWN_PAUSED
"""States that clients see."""


class Instruction(Enum):
    """What the shell has to do beside writing the new state."""

    END_ON_NODE = auto()
    """Delete it on its node until the node confirms, then report EndConfirmed."""


@dataclass(frozen=True, slots=True)
class Started:
    """The node said that it runs: by the answer to Create, or in its list."""

    execution_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The node certainly made nothing. Not of a resume, where something is left: ResumeFailed."""

    execution_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """Create was sent and its answer lost, or it failed half-way."""

    execution_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """A client wants its memory on disk and its VM gone."""

    execution_id: str


@dataclass(frozen=True, slots=True)
class PauseRefused:
    """The node would not or could not pause it: it runs on."""

    execution_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Paused:
    """The node has it whole on disk: by the answer to Pause, its outbox, or its list.

    `memory` is False when only files were kept, None when the node did not say: then it is what
    its owner wanted at the deadline.
    """

    execution_id: str
    at: datetime
    memory: bool | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Somebody wants it to go on, as the run `new_execution_id`."""

    execution_id: str
    new_execution_id: str


@dataclass(frozen=True, slots=True)
class ResumeFailed:
    """The node did not resume it and still has it on disk."""

    execution_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KillAsked:
    """A client wants it gone."""

    execution_id: str
    reason: str = "killed by request"


@dataclass(frozen=True, slots=True)
class EndConfirmed:
    """The node answered Delete, or that it has no such sandbox."""

    execution_id: str


@dataclass(frozen=True, slots=True)
class Reported:
    """An end from the node's outbox; `outcome` is one of the terminal states."""

    execution_id: str
    outcome: State
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Its node lists what it has, running and paused, and this is not among it."""

    execution_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """Its node is silent, and its deadline `at` has passed so long ago that the node has ended it
    by itself, or paused it where it `pauses`. When the node speaks again its lists are the truth.
    """

    execution_id: str
    at: datetime
    pauses: bool
    reason: str


Event = (
    Started
    | Refused
    | OutcomeUnknown
    | PauseAsked
    | PauseRefused
    | Paused
    | ResumeAsked
    | ResumeFailed
    | KillAsked
    | EndConfirmed
    | Reported
    | Lost
    | LeaseEnded
)


@dataclass(frozen=True, slots=True)
class Record:
    """The part of a record that decides."""

    execution_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Transition:
    """What an event makes of a record."""

    before: State
    after: State
    reason: str | None = None
    instructions: tuple[Instruction, ...] = ()
    frees_idempotency_key: bool = False
    paused: Paused | None = None
    """Since when it is paused and with what: to be written with the state."""
    new_execution_id: str | None = None
    """Set when the transition begins another run."""

    @property
    def changes(self) -> bool:
        """Whether a write is due."""
        return self.before != self.after or self.paused is not None


def handle(record: Record, event: Event) -> Transition:
    """What `event` makes of `record`. Never raises: an event that comes late changes nothing."""
    if event.execution_id != record.execution_id:
        return _nothing(record.state)
    return _edge(record.state, event)


def _edge(state: State, event: Event) -> Transition:  # noqa: PLR0911, PLR0912 - one return an event
    match event:
        case Started():
            return _started(state)
        case Refused():
            return _refused(state, event)
        case OutcomeUnknown():
            return _outcome_unknown(state, event)
        case PauseAsked():
            return _pause_asked(state)
        case PauseRefused():
            return _pause_refused(state)
        case Paused():
            return _paused(state, event)
        case ResumeAsked():
            return _resume_asked(state, event)
        case ResumeFailed():
            return _resume_failed(state)
        case KillAsked():
            return _kill_asked(state, event)
        case EndConfirmed():
            return _end_confirmed(state)
        case Reported():
            return _reported(state, event)
        case Lost():
            return _lost(state, event)
        case LeaseEnded():
            return _lease_ended(state, event)


def _nothing(state: State) -> Transition:
    return Transition(state, state)


def _end_again(state: State) -> Transition:
    return Transition(state, state, instructions=(Instruction.END_ON_NODE,))


def _started(state: State) -> Transition:
    if state in (State.CREATING, State.RESUMING):
        return Transition(state, State.RUNNING)
    if state in (State.KILLING, State.KILLED, State.FAILED):
        # Given up before it ran: a Delete that found nothing may have overtaken the Create.
        return _end_again(state)
    return _nothing(state)


def _refused(state: State, event: Refused) -> Transition:
    if state is State.CREATING:
        return Transition(state, State.FAILED, event.reason, frees_idempotency_key=True)
    if state is State.KILLING:
        return Transition(state, State.KILLED, event.reason)
    return _nothing(state)


def _outcome_unknown(state: State, event: OutcomeUnknown) -> Transition:
    if state in (State.CREATING, State.RUNNING):
        # Running: the node listed it before the answer was lost. Nobody got its id.
        return Transition(
            state,
            State.KILLING,
            event.reason,
            (Instruction.END_ON_NODE,),
            frees_idempotency_key=True,
        )
    return _end_again(state) if state is State.KILLING else _nothing(state)


def _pause_asked(state: State) -> Transition:
    # Not while creating: the node has nothing to pause before it answers.
    return Transition(state, State.PAUSING) if state is State.RUNNING else _nothing(state)


def _pause_refused(state: State) -> Transition:
    return Transition(state, State.RUNNING) if state is State.PAUSING else _nothing(state)


def _paused(state: State, event: Paused) -> Transition:
    if state in (State.KILLING, State.KILLED):
        # A Delete that found nothing may have overtaken the end of the pause.
        return _end_again(state)
    if state is State.RESUMING:
        return _resume_failed(state)
    if state in (State.CREATING, State.RUNNING, State.PAUSING, State.CRASHED):
        # Crashed: it was missed in the lists of its node, and is there after all.
        return Transition(state, State.PAUSED, paused=event)
    if state is State.PAUSED and event.memory is not None:
        # Its outbox said so before, and does not know with what.
        return Transition(state, state, paused=event)
    return _nothing(state)


def _resume_asked(state: State, event: ResumeAsked) -> Transition:
    if state is State.PAUSED:
        return Transition(state, State.RESUMING, new_execution_id=event.new_execution_id)
    return _nothing(state)


def _resume_failed(state: State) -> Transition:
    # Since when it is paused, and with what, stays as it was.
    return Transition(state, State.PAUSED) if state is State.RESUMING else _nothing(state)


def _kill_asked(state: State, event: KillAsked) -> Transition:
    if state in VISIBLE:
        return Transition(state, State.KILLING, event.reason, (Instruction.END_ON_NODE,))
    # The second caller joins: Delete is idempotent on the node and answers both.
    return _end_again(state) if state is State.KILLING else _nothing(state)


def _end_confirmed(state: State) -> Transition:
    return Transition(state, State.KILLED) if state is State.KILLING else _nothing(state)


def _reported(state: State, event: Reported) -> Transition:
    if state not in LIVE:
        return _nothing(state)
    if state is State.PAUSED and event.outcome is not State.KILLED:
        # Not to be lost by one word: the lists of its node show whether it is gone.
        return _nothing(state)
    # A kill that was asked for here has its reason already; the node only repeats that it was.
    known = state is State.KILLING and event.outcome is State.KILLED
    return Transition(state, event.outcome, None if known else event.reason)


def _lost(state: State, event: Lost) -> Transition:
    if state not in LIVE:
        return _nothing(state)
    after = {State.CREATING: State.FAILED, State.KILLING: State.KILLED}.get(state, State.CRASHED)
    return Transition(state, after, event.reason, frees_idempotency_key=after is State.FAILED)


def _lease_ended(state: State, event: LeaseEnded) -> Transition:
    if state is State.PAUSING or (state is State.RUNNING and event.pauses):
        return Transition(state, State.PAUSED, paused=Paused(event.execution_id, event.at))
    if state is State.RESUMING:
        return _resume_failed(state)
    if state is State.RUNNING:
        return Transition(state, State.EXPIRED, event.reason)
    lost = Lost(event.execution_id, event.reason)
    return _nothing(state) if state is State.PAUSED else _lost(state, lost)
