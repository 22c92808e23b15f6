"""Which warm clones there are and shall be, as a state machine without I/O.

    WAITING ──Began──▶ WARMING ──Warmed──▶ READY ──Asked──▶ given away
       │                  │ Asked            │ Died
       │ unwanted         ▼                  │ unwanted
       │               PROMISED ──Warmed──▶ given away
       ▼                  ▼ WarmingFailed    ▼
     ENDING ◀─────────────┴──────────────────┘ ──Ended──▶ gone

A clone is unwanted when its template is another build now, when there are more than demand asks
for, when memory is short, and when the host closes.

`handle(event)` returns instructions; the shell around it carries them out and turns their results
into events.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emberbox.orchestrator.pool.demand import Demand, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STORY_LINES = 100

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
"""Seconds until another clone of a build is tried after one failed; they double."""


class State(enum.Enum):
    """Where a clone is on its way to a sandbox."""

    WAITING = "waiting"  # until the host has time for it
    WARMING = "warming"
    PROMISED = "promised"  # given away before it was warm
    READY = "ready"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class Offered:
    """These builds are the ones to keep clones of, and no others."""

    builds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Adopted:
    """A warm clone that an earlier orchestrator made lives."""

    clone: str
    build: str


@dataclass(frozen=True, slots=True)
class Began:
    """The host has time; the clone is being made."""

    clone: str


@dataclass(frozen=True, slots=True)
class Warmed:
    """The clone runs and has answered."""

    clone: str


@dataclass(frozen=True, slots=True)
class WarmingFailed:
    """The clone did not come up."""

    clone: str
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """A ready clone's VM has ended by itself."""

    clone: str
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A sandbox of this build is wanted."""

    build: str


@dataclass(frozen=True, slots=True)
class Looked:
    """Time has passed. `room`: how many more clones memory holds; negative: too many."""

    room: int


@dataclass(frozen=True, slots=True)
class Closed:
    """No clone is wanted any more."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing of the clone is left."""

    clone: str


Event = Offered | Adopted | Began | Warmed | WarmingFailed | Died | Asked | Looked | Closed | Ended


@dataclass(frozen=True, slots=True)
class Warm:
    """Make a clone when the host has time; Began, then Warmed or WarmingFailed follow."""

    clone: str
    build: str


@dataclass(frozen=True, slots=True)
class Give:
    """The clone is the sandbox's that was asked for."""

    clone: str


@dataclass(frozen=True, slots=True)
class End:
    """Break off what is being done with the clone and end it; Ended follows."""

    clone: str
    reason: str


Instruction = Warm | Give | End


class InvalidTransition(Exception):  # noqa: N818 - a defect of ours, not a condition to handle
    """An event that a clone's state does not allow; the message tells the story."""


@dataclass(slots=True)
class _Clone:
    build: str
    state: State


@dataclass(slots=True)
class _Build:
    """What is known of a build that is kept warm."""

    demand: Demand
    pause: float = 0.0
    not_before: float = 0.0


@dataclass(slots=True)
class Stock:
    """All clones of one host. `now` returns seconds that only go forward."""

    sizes: Sizes
    now: Callable[[], float]
    new_id: Callable[[], str]
    room: int = 0
    closed: bool = False
    clones: dict[str, _Clone] = field(default_factory=dict)
    builds: dict[str, _Build] = field(default_factory=dict)
    story: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=STORY_LINES))

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; what is to be done now, in order."""
        if not isinstance(event, Looked):
            self.story.append((self.now(), str(event)))
        instructions: list[Instruction] = []
        match event:
            case Offered(builds):
                instructions = self._offered(builds)
            case Adopted(clone, build):
                self.clones[clone] = _Clone(build, State.READY)
            case Began(clone):
                self._move(clone, State.WARMING, State.WAITING)
            case Warmed(clone):
                instructions = self._warmed(clone)
            case WarmingFailed(clone, reason):
                instructions = self._failed(clone, reason)
            case Died(clone, reason):
                instructions = self._died(clone, reason)
            case Asked(build):
                instructions = self._asked(build)
            case Looked(room):
                instructions = self._looked(room)
            case Closed():
                self.closed = True
                instructions = self._end(list(self.clones), "the host closes")
            case Ended(clone):
                self._move(clone, State.ENDING, State.ENDING)
                del self.clones[clone]
                instructions = self._fill()
        return instructions

    def count(self, *states: State) -> int:
        """How many clones are in these states."""
        return sum(clone.state in states for clone in self.clones.values())

    @property
    def wanted(self) -> int:
        """How many ready clones there shall be."""
        return sum(build.demand.target for build in self.builds.values())

    def _offered(self, builds: frozenset[str]) -> list[Instruction]:
        now = self.now()
        for build in builds - self.builds.keys():
            self.builds[build] = _Build(Demand(self.sizes, now))
        for build in self.builds.keys() - builds:
            del self.builds[build]
        replaced = [
            name
            for name, clone in self.clones.items()
            if clone.build not in builds and clone.state is not State.PROMISED
        ]
        return [*self._end(replaced, "its build is not offered any more"), *self._adjust()]

    def _warmed(self, name: str) -> list[Instruction]:
        clone = self._known(name)
        if clone.state is State.ENDING:
            return []
        if clone.state is State.PROMISED:
            del self.clones[name]
            return self._fill()
        self._move(name, State.READY, State.WARMING)
        if (build := self.builds.get(clone.build)) is not None:
            build.pause = 0.0
        return self._adjust()

    def _failed(self, name: str, reason: str) -> list[Instruction]:
        clone = self._known(name)
        if clone.state is State.ENDING:
            return []
        if (build := self.builds.get(clone.build)) is not None:
            build.pause = min(_LONGEST_PAUSE, 2 * build.pause or _FIRST_PAUSE)
            build.not_before = self.now() + build.pause
        return [*self._end([name], reason), *self._fill()]

    def _died(self, name: str, reason: str) -> list[Instruction]:
        if name not in self.clones or self.clones[name].state is State.ENDING:
            return []  # its sandbox's affair by now, or it ended of being ended
        return [*self._end([name], reason), *self._fill()]

    def _asked(self, name: str) -> list[Instruction]:
        build = self.builds.get(name)
        if build is None or self.closed:
            return []
        ready, warming = self._names(name, State.READY), self._names(name, State.WARMING)
        build.demand.asked(len(ready))
        given: list[Instruction] = []
        if ready:
            del self.clones[ready[0]]
            given = [Give(ready[0])]
        elif warming:  # it is further than another start would be
            self.clones[warming[0]].state = State.PROMISED
            given = [Give(warming[0])]
        return [*given, *self._fill()]

    def _looked(self, room: int) -> list[Instruction]:
        self.room = room
        for name, build in self.builds.items():
            build.demand.looked(self.now(), len(self._names(name, State.READY)))
        return self._adjust()

    def _adjust(self) -> list[Instruction]:
        """End those that are too many, make those that lack."""
        ended: list[Instruction] = []
        for name, build in self.builds.items():
            ready = self._names(name, State.READY)
            ended += self._end(ready[build.demand.target :], "fewer are needed")
        if self.room < 0:
            kept = [n for n, c in self.clones.items() if c.state in (State.READY, State.WAITING)]
            ended += self._end(kept[self.room :], "memory is short")
        return [*ended, *self._fill()]

    def _fill(self) -> list[Instruction]:
        making = self.count(State.WAITING, State.WARMING, State.PROMISED)
        warmed: list[Instruction] = []
        for name in self._lacking():
            if making >= self.sizes.at_once or self.room <= 0 or self.closed:
                break
            clone = self.new_id()
            self.clones[clone] = _Clone(name, State.WAITING)
            self.room -= 1
            making += 1
            warmed.append(Warm(clone, name))
        return warmed

    def _lacking(self) -> Iterable[str]:
        """A build for each clone that it lacks, those that have the fewest first."""
        now = self.now()
        lacks: list[tuple[int, str]] = []
        for name, build in self.builds.items():
            has = len(self._names(name, State.WAITING, State.WARMING, State.READY))
            if now >= build.not_before:
                lacks += ((number, name) for number in range(has, build.demand.target))
        return [name for _, name in sorted(lacks)]

    def _end(self, names: Iterable[str], reason: str) -> list[Instruction]:
        ended: list[Instruction] = []
        for name in names:
            if self.clones[name].state is not State.ENDING:
                self.clones[name].state = State.ENDING
                ended.append(End(name, reason))
        return ended

    def _names(self, build: str, *states: State) -> list[str]:
        """Those of a build in these states, the oldest first."""
        return [n for n, c in self.clones.items() if c.build == build and c.state in states]

    def _known(self, name: str) -> _Clone:
        if name not in self.clones:
            raise self._invalid(name)
        return self.clones[name]

    def _move(self, name: str, to: State, *allowed: State) -> None:
        clone = self._known(name)
        if clone.state not in allowed:
            raise self._invalid(name)
        clone.state = to

    def _invalid(self, name: str) -> InvalidTransition:
        state = self.clones[name].state.value if name in self.clones else "unknown"
        told = "; ".join(text for _, text in self.story)
        return InvalidTransition(f"clone {name} is {state}: {told}")
