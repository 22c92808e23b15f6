"""What holds of warm clones in whatever order things happen."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from emberbox.orchestrator.pool.demand import Sizes
from emberbox.orchestrator.pool.lifecycle import (
    Asked,
    Began,
    Closed,
    Died,
    End,
    Ended,
    Event,
    Give,
    Instruction,
    Looked,
    Offered,
    State,
    Stock,
    Warm,
    Warmed,
    WarmingFailed,
)

MOST, LEAST, AT_ONCE = 3, 1, 2
BUILDS = ("b1", "b2")


class Shell:
    """Carries out what the stock decides, each step when it is told to, as the real one may."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.now = 0.0
        sizes = Sizes(MOST, LEAST, AT_ONCE, idle_seconds=10)
        self.stock = Stock(sizes, lambda: self.now, lambda: f"c{next(numbers)}")
        self.given: list[str] = []
        self.closed = False

    def feed(self, event: Event) -> None:
        for instruction in self.stock.handle(event):
            self._carry_out(instruction)
        self._check()

    def step(self, choice: int, *, fails: bool) -> None:
        """Let what is under way with one of the clones come to its end."""
        clones = list(self.stock.clones.items())
        if not clones:
            return
        name, clone = clones[choice % len(clones)]
        match clone.state:
            case State.WAITING:
                self.feed(Began(name))
            case State.WARMING | State.PROMISED:
                self.feed(WarmingFailed(name, "broken") if fails else Warmed(name))
            case State.READY:
                if fails:
                    self.feed(Died(name, "gone"))
            case State.ENDING:
                self.feed(Ended(name))

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Give(clone):
                assert clone not in self.given
                self.given.append(clone)
            case Warm(clone, build):
                assert not self.closed
                assert build in self.stock.builds
                assert self.stock.clones[clone].state is State.WAITING
            case End(clone):
                assert self.stock.clones[clone].state is State.ENDING

    def _check(self) -> None:
        making = self.stock.count(State.WAITING, State.WARMING, State.PROMISED)
        assert making <= AT_ONCE
        for name, build in self.stock.builds.items():
            assert LEAST <= build.demand.target <= MOST
            mine = [clone for clone in self.stock.clones.values() if clone.build == name]
            kept = [clone for clone in mine if clone.state not in (State.ENDING, State.PROMISED)]
            assert len(kept) <= MOST
        if self.closed:
            assert {clone.state for clone in self.stock.clones.values()} <= {State.ENDING}


moves = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("ask"), st.sampled_from(BUILDS)),
    st.tuples(st.just("look"), st.integers(-3, 9), st.floats(0, 20)),
    st.tuples(st.just("offer"), st.sets(st.sampled_from(BUILDS), min_size=1)),
)


@given(st.lists(moves, max_size=60))
@settings(max_examples=150, deadline=None)
def test_in_whatever_order_things_happen(steps: list[tuple[object, ...]]) -> None:
    shell = Shell()
    for step in steps:
        match step:
            case ("step", int(choice), bool(fails)):
                shell.step(choice, fails=fails)
            case ("ask", str(build)):
                shell.feed(Asked(build))
            case ("look", int(room), float(seconds)):
                shell.now += seconds
                shell.feed(Looked(room))
            case ("offer", set(builds)):
                shell.feed(Offered(frozenset(map(str, builds))))
    shell.closed = True
    shell.feed(Closed())
    while shell.stock.clones:
        shell.step(0, fails=False)
