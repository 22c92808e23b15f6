"""A record, its host, and a network that loses and delays what they tell one another.

The host is modelled as its interface says: Create makes a run or continues a paused sandbox,
Pause turns a run into a snapshot, Delete removes either, and its outbox keeps what ended by
itself. Whatever order things come in, at the end the record says what the host has.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from emberbox.api_server.records.history import ENDS, What, what_happened
from emberbox.api_server.records.lifecycle import (
    LIVE,
    EndConfirmed,
    Event,
    Instruction,
    KillAsked,
    Lost,
    OutcomeUnknown,
    PauseAsked,
    Paused,
    PauseRefused,
    Record,
    Refused,
    Reported,
    ResumeAsked,
    ResumeFailed,
    Started,
    State,
    handle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MOMENT = datetime(2026, 8, 21, tzinfo=UTC)
FIRST = "1"
"""The run that a create begins; all others begin with a resume."""
_OVER = {"expired": State.EXPIRED, "crashed": State.CRASHED, "killed": State.KILLED}


class Host:
    """What runs there, what is paused there, and what it has yet to report."""

    def __init__(self) -> None:
        self.runs: str | None = None
        self.paused: str | None = None
        self.outbox: list[Event] = []

    def create(self, execution_id: str, *, full: bool) -> Event:
        if self.runs == execution_id:
            return Started(execution_id)
        if full or self.runs is not None or self.paused is not None:
            return Refused(execution_id, "no room")
        self.runs = execution_id
        return Started(execution_id)

    def resume(self, execution_id: str, *, full: bool) -> Event:
        if self.runs == execution_id:
            return Started(execution_id)
        if full or self.runs is not None or self.paused is None:
            return ResumeFailed(execution_id, "no room")
        self.runs, self.paused = execution_id, None
        return Started(execution_id)

    def pause(self, execution_id: str, *, full: bool) -> Event:
        if self.paused == execution_id:
            return Paused(execution_id, MOMENT, memory=True)
        if full or self.runs != execution_id:
            return PauseRefused(execution_id, "no room")
        self.runs, self.paused = None, execution_id
        return Paused(execution_id, MOMENT, memory=True)

    def delete(self, execution_id: str) -> Event:
        if self.runs is not None:
            self.outbox.append(Reported(self.runs, State.KILLED, "asked"))
        self.runs = self.paused = None
        return EndConfirmed(execution_id)


class Life(RuleBasedStateMachine):
    """One record, from its reservation on."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = map(str, itertools.count(1))
        self.host = Host()
        self.record = Record(next(self._ids), State.CREATING)
        assert self.record.execution_id == FIRST
        self.ended = False
        # What is on its way to the host, by what it is about; what comes back to the record.
        self.calls: list[Callable[[bool], Event]] = [self._create(self.record.execution_id)]
        self.answers: list[Event] = []
        self.ends = 0
        """Instructions to delete that are not carried out yet; they are retried until they are."""
        self.log: list[What] = [What.CREATED]

    def _create(self, run: str) -> Callable[[bool], Event]:
        return lambda full: self.host.create(run, full=full)

    # What clients want

    @rule()
    def kill(self) -> None:
        self.tell(KillAsked(self.record.execution_id))

    @rule()
    def pause(self) -> None:
        run = self.record.execution_id
        if self.tell(PauseAsked(run)) is State.PAUSING:
            self.calls.append(lambda full: self.host.pause(run, full=full))

    @precondition(lambda self: self.record.state is State.PAUSED)
    @rule()
    def resume(self) -> None:
        self.tell(ResumeAsked(self.record.execution_id, next(self._ids)))
        run = self.record.execution_id
        self.calls.append(lambda full: self.host.resume(run, full=full))

    # What the network and the host do

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), full=st.booleans(), lost=st.booleans())
    def a_call_arrives(self, data: st.DataObject, full: bool, lost: bool) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        answer = call(full)
        if not lost:
            self.answers.append(answer)
        elif answer.execution_id == FIRST and isinstance(answer, Refused | Started):
            self.answers.append(OutcomeUnknown(FIRST, "lost"))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        self.tell(self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1))))

    @precondition(lambda self: self.ends)
    @rule(lost=st.booleans())
    def a_delete_arrives(self, lost: bool) -> None:
        answer = self.host.delete(self.record.execution_id)
        if not lost:
            self.ends -= 1
            self.answers.append(answer)

    @precondition(lambda self: self.host.outbox)
    @rule()
    def the_outbox_is_read(self) -> None:
        self.tell(self.host.outbox.pop(0))

    @precondition(lambda self: self.host.runs is not None)
    @rule(how=st.sampled_from(["expired", "crashed", "paused"]))
    def it_ends_by_itself(self, how: str) -> None:
        run = self.host.runs
        assert run is not None
        self.host.runs = None
        if how == "paused":
            self.host.paused = run
            self.host.outbox.append(Paused(run, MOMENT, reason="its deadline passed"))
        else:
            self.host.outbox.append(Reported(run, _OVER[how], "because"))

    @rule()
    def the_lists_are_compared(self) -> None:
        """What `Comparison` makes of them once all graces are over and nothing is on its way."""
        if self.calls or self.answers or self.ends or self.host.outbox:
            return
        run, state = self.record.execution_id, self.record.state
        if state is State.KILLING:
            self.ends += 1
        elif state not in LIVE:
            self.settle_an_orphan()
        elif self.host.runs == run:
            if state in (State.CREATING, State.RESUMING):
                self.tell(Started(run))
            elif state is State.PAUSING:
                self.tell(PauseRefused(run))
        elif self.host.paused is not None:
            self.tell(Paused(run, MOMENT, memory=True))
        else:
            self.tell(Lost(run, "absent"))

    def settle_an_orphan(self) -> None:
        if self.record.state is State.CRASHED and self.host.paused is not None:
            self.tell(Paused(self.record.execution_id, MOMENT, memory=True))
        elif self.host.runs is not None or self.host.paused is not None:
            self.ends += 1

    # The shell

    def tell(self, event: Event) -> State:
        transition = handle(self.record, event)
        run = transition.new_execution_id or self.record.execution_id
        before, self.record = self.record, Record(run, transition.after)
        self.ends += Instruction.END_ON_NODE in transition.instructions
        if transition.after is State.KILLING and before.state is not State.KILLING:
            assert Instruction.END_ON_NODE in transition.instructions
        if before.state not in LIVE and transition.changes:
            assert (before.state, transition.after) == (State.CRASHED, State.PAUSED)
        if transition.new_execution_id is not None:
            assert before.state is State.PAUSED
        what = what_happened(transition)
        assert (what is not None) == (before.state is not transition.after)
        self.log += [what] if what is not None else []
        return transition.after

    @invariant()
    def the_log_tells_the_end(self) -> None:
        assert (self.log[-1] in ENDS) == (self.record.state not in LIVE)

    def teardown(self) -> None:
        """Let all arrive, and compare until nothing changes: then they agree."""
        for _ in range(20):
            while self.calls:
                self.answers.append(self.calls.pop(0)(True))
            while self.answers:
                self.tell(self.answers.pop(0))
            while self.ends:
                self.ends -= 1
                self.answers.append(self.host.delete(self.record.execution_id))
            while self.host.outbox:
                self.tell(self.host.outbox.pop(0))
            self.the_lists_are_compared()
        state = self.record.state
        assert state in (*(set(State) - LIVE), State.RUNNING, State.PAUSED)
        assert (self.host.runs is not None) == (state is State.RUNNING)
        assert (self.host.paused is not None) == (state is State.PAUSED)


Life.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
