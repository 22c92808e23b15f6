"""The life of a sandbox record: states, events, one function per edge, no I/O.

            Refused                       Reported / Lost
   creating ────────► failed     running ───────────────► killed, expired, crashed
      │ Started                     ▲ │
      ├─────────────────────────────┘ │ KillAsked
      │ KillAsked, OutcomeUnknown     ▼
      └──────────────────────────► killing ──EndConfirmed, Reported, Lost──► killed, expired, …

`handle` says what an event makes of a record. The shell (`records.keeper`) writes it by
compare-and-set on (state, execution id) and carries out the instructions. An event of another
execution changes nothing: it speaks of a run that is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class State(StrEnum):
    """Stored as they are named."""

    CREATING = "creating"
    RUNNING = "running"
    KILLING = "killing"
    KILLED = "killed"
    EXPIRED = "expired"
    CRASHED = "crashed"
    FAILED = "failed"


LIVE = frozenset({State.CREATING, State.RUNNING, State.KILLING})
"""States that hold quota."""

VISIBLE = frozenset({State.CREATING, State.RUNNING})
"""States that clients see as running. A reservation is among them because "running" is written
after create has answered: its caller may ask about it first."""


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
    """The node certainly made nothing."""

    execution_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """Create was sent and its answer lost, or it failed half-way."""

    execution_id: str
    reason: str


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
    """An outcome from the node's outbox; `outcome` is one of the terminal states."""

    execution_id: str
    outcome: State
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Its node lists what it has, and this is not among it."""

    execution_id: str
    reason: str


Event = Started | Refused | OutcomeUnknown | KillAsked | EndConfirmed | Reported | Lost


@dataclass(frozen=True, slots=True)
class Record:
    """The part of a record that decides."""

    execution_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Transition:
    """What an event makes of a record; `before` equal to `after` writes nothing."""

    before: State
    after: State
    reason: str | None = None
    instructions: tuple[Instruction, ...] = ()
    frees_idempotency_key: bool = False

    @property
    def changes(self) -> bool:
        """Whether a write is due."""
        return self.before != self.after


def handle(record: Record, event: Event) -> Transition:
    """What `event` makes of `record`. Never raises: an event that comes late changes nothing."""
    if event.execution_id != record.execution_id:
        return _nothing(record.state)
    return _edge(record.state, event)


def _edge(state: State, event: Event) -> Transition:  # noqa: PLR0911 - one return an event
    match event:
        case Started():
            return _started(state)
        case Refused():
            return _refused(state, event)
        case OutcomeUnknown():
            return _outcome_unknown(state, event)
        case KillAsked():
            return _kill_asked(state, event)
        case EndConfirmed():
            return _end_confirmed(state)
        case Reported():
            return _reported(state, event)
        case Lost():
            return _lost(state, event)


def _nothing(state: State) -> Transition:
    return Transition(state, state)


def _started(state: State) -> Transition:
    if state is State.CREATING:
        return Transition(state, State.RUNNING)
    if state in (State.KILLING, State.KILLED, State.FAILED):
        # Given up before it ran: a Delete that found nothing may have overtaken the Create.
        return Transition(state, state, instructions=(Instruction.END_ON_NODE,))
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
    if state is State.KILLING:
        return Transition(state, state, instructions=(Instruction.END_ON_NODE,))
    return _nothing(state)


def _kill_asked(state: State, event: KillAsked) -> Transition:
    if state in (State.CREATING, State.RUNNING):
        return Transition(state, State.KILLING, event.reason, (Instruction.END_ON_NODE,))
    if state is State.KILLING:
        # The second caller joins: Delete is idempotent on the node and answers both.
        return Transition(state, state, instructions=(Instruction.END_ON_NODE,))
    return _nothing(state)


def _end_confirmed(state: State) -> Transition:
    return Transition(state, State.KILLED) if state is State.KILLING else _nothing(state)


def _reported(state: State, event: Reported) -> Transition:
    if state not in LIVE:
        return _nothing(state)
    # A kill that was asked for here has its reason already; the node only repeats that it was.
    known = state is State.KILLING and event.outcome is State.KILLED
    return Transition(state, event.outcome, None if known else event.reason)


def _lost(state: State, event: Lost) -> Transition:
    after = {
        State.CREATING: State.FAILED,
        State.RUNNING: State.CRASHED,
        State.KILLING: State.KILLED,
    }.get(state)
    if after is None:
        return _nothing(state)
    return Transition(state, after, event.reason, frees_idempotency_key=after is State.FAILED)
