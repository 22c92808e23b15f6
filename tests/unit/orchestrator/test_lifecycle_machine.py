"""Every order of events in the life of a run, as the shell around the lifecycle can see them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from emberbox.orchestrator.sandboxes.lifecycle import (
    CheckpointRequested,
    Copied,
    Copy,
    EndRequested,
    Event,
    Forget,
    Instruction,
    Lifecycle,
    MachineGone,
    Outcome,
    PauseFailed,
    PauseRequested,
    Reclaim,
    Reclaimed,
    Record,
    Report,
    Saved,
    Started,
    StartFailed,
    State,
    Suspend,
)

_RESULTS: dict[str, tuple[Event, Event]] = {
    "start": (Started(), StartFailed("no")),
    "suspend": (Saved(), PauseFailed("no")),
    "copy": (Copied(), Copied()),
    "reclaim": (Reclaimed(), Reclaimed()),
}


class Run(RuleBasedStateMachine):
    """A shell that carries out what it is told, one piece of work at a time, in any order with
    what comes from outside."""

    work: str | None
    life: Lifecycle

    @initialize(resumed=st.booleans())
    def begin(self, resumed: bool) -> None:
        self.life = Lifecycle("iabc", lambda: 0.0, resumed)
        self.work = "start"
        self.machine = True
        self.recorded: list[Outcome] = []
        self.reported: list[Outcome] = []
        self.reclaims = self.forgets = 0
        self.saved = resumed
        """Whether a snapshot of the sandbox is on disk."""

    @precondition(lambda self: self.work is not None)
    @rule(well=st.booleans())
    def work_ends(self, well: bool) -> None:
        work, self.work = self.work, None
        assert work is not None
        if work == "suspend" and well:
            self.saved = True
        if work == "start" and well:
            self.saved = False  # the run has taken it
        self.feed(_RESULTS[work][0 if well else 1])

    @rule(outcome=st.sampled_from([Outcome.KILLED, Outcome.EXPIRED]))
    def somebody_ends_it(self, outcome: Outcome) -> None:
        self.feed(EndRequested(outcome, "because"))

    @precondition(lambda self: self.life.state is not State.STARTING)
    @rule(files_only=st.booleans())
    def somebody_pauses_it(self, files_only: bool) -> None:
        self.feed(PauseRequested("because", files_only))

    @precondition(lambda self: self.life.state is State.RUNNING)
    @rule()
    def somebody_copies_it(self) -> None:
        self.feed(CheckpointRequested())

    @precondition(lambda self: self.machine)
    @rule()
    def the_machine_dies(self) -> None:
        self.machine = False
        if self.work == "start":  # whoever starts it notices
            return
        self.feed(MachineGone("it died"))

    def feed(self, event: Event) -> None:
        for instruction in self.life.handle(event):
            self.carry_out(instruction)

    def carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Record(outcome):
                self.recorded.append(outcome)
            case Reclaim():
                assert self.recorded, "an end is written down before anything is taken away"
                self.start("reclaim")
                self.reclaims += 1
            case Copy():
                self.start("copy")
            case Suspend():
                self.start("suspend")
            case Report(outcome):
                assert self.reclaims == 1
                self.reported.append(outcome)
            case Forget(discard):
                self.forgets += 1
                if discard:
                    self.saved = False

    def start(self, work: str) -> None:
        assert self.work is None, f"{work} begins while {self.work} goes on"
        self.work = work

    @invariant()
    def one_end(self) -> None:
        assert len(set(self.recorded)) <= 1, "of two ends the first is the truth"
        assert self.reported in ([], self.recorded[:1])
        assert self.reclaims <= 1
        assert self.forgets <= 1

    @invariant()
    def states_are_what_goes_on(self) -> None:
        expected = {
            "start": {State.STARTING, State.ENDING},
            "suspend": {State.PAUSING, State.ENDING},
            "copy": {State.COPYING, State.ENDING},
            "reclaim": {State.ENDING},
            None: {State.RUNNING, State.ENDED},
        }
        assert self.life.state in expected[self.work], (self.life.state, self.work)

    def teardown(self) -> None:
        """Whatever has happened, a kill brings it to its end."""
        if not hasattr(self, "life"):
            return
        self.somebody_ends_it(Outcome.KILLED)
        for _ in range(3):
            if self.work is not None:
                self.work_ends(True)
        assert self.life.state is State.ENDED
        assert (self.reclaims, self.forgets) == (1, 1)
        assert self.reported == [o for o in self.recorded if o is not Outcome.FAILED][:1]
        if self.recorded[0] in (Outcome.KILLED, Outcome.EXPIRED, Outcome.CRASHED):
            assert not self.saved, "what has ended for good leaves no snapshot"


Run.TestCase.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
TestRun = Run.TestCase
