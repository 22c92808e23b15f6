"""Orders of events in the life of a record, without I/O."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberbox.api_server.records.lifecycle import (
    COUNTED,
    LIVE,
    EndConfirmed,
    Event,
    Instruction,
    KillAsked,
    LeaseEnded,
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
    Transition,
    handle,
)

from .standin import MOMENT

RUN, SECOND = "run", "second run"
STARTED = Started(RUN)
REFUSED = Refused(RUN, "full")
UNKNOWN = OutcomeUnknown(RUN, "deadline")
KILL = KillAsked(RUN)
CONFIRMED = EndConfirmed(RUN)
KILLED = Reported(RUN, State.KILLED, "asked")
EXPIRED = Reported(RUN, State.EXPIRED, "deadline")
CRASHED = Reported(RUN, State.CRASHED, "panic")
LOST = Lost(RUN, "absent")
LEASE = LeaseEnded(RUN, MOMENT, False, "unreachable")
PAUSE = PauseAsked(RUN)
PAUSE_REFUSED = PauseRefused(RUN)
PAUSED = Paused(RUN, MOMENT, memory=True)
AUTO_PAUSED = Paused(RUN, MOMENT)
RESUME = ResumeAsked(RUN, SECOND)
RESUME_FAILED = ResumeFailed(RUN)
OF_ITS_RUN = (
    STARTED, REFUSED, UNKNOWN, PAUSE, PAUSE_REFUSED, PAUSED, AUTO_PAUSED, RESUME_FAILED, KILL,
    CONFIRMED, KILLED, EXPIRED, CRASHED, LOST, LEASE,
)  # fmt: skip
EVENTS = (*OF_ITS_RUN, RESUME, *(replace(event, execution_id=SECOND) for event in OF_ITS_RUN))


def again(event: Event) -> Event:
    """The same of the run that the resume began."""
    return replace(event, execution_id=SECOND)


def story(*events: Event) -> tuple[State, list[bool]]:
    """The last state, and for each event whether the node is to be told to end it."""
    record, ends = Record(RUN, State.CREATING), []
    for event in events:
        transition = handle(record, event)
        record = after(record, transition)
        ends.append(Instruction.END_ON_NODE in transition.instructions)
    return record.state, ends


def after(record: Record, transition: Transition) -> Record:
    return Record(transition.new_execution_id or record.execution_id, transition.after)


@pytest.mark.parametrize(
    ("events", "last", "ends"),
    [
        ([STARTED], State.RUNNING, [False]),
        ([REFUSED], State.FAILED, [False]),
        ([STARTED, KILL, CONFIRMED], State.KILLED, [False, True, False]),
        ([STARTED, EXPIRED], State.EXPIRED, [False, False]),
        ([STARTED, CRASHED], State.CRASHED, [False, False]),
        # Ended by itself before "running" was written.
        ([CRASHED, STARTED], State.CRASHED, [False, False]),
        # Killed between answer and "running": the late write ends it again, harmlessly.
        ([KILL, STARTED, CONFIRMED], State.KILLED, [True, True, False]),
        # Delete found nothing because it overtook Create; then Create succeeds.
        ([KILL, CONFIRMED, STARTED], State.KILLED, [True, False, True]),
        ([UNKNOWN, CONFIRMED], State.KILLED, [True, False]),
        # The node listed it before the answer was lost.
        ([STARTED, UNKNOWN, CONFIRMED], State.KILLED, [False, True, False]),
        # Two kills at once, and the node's own report of them.
        ([STARTED, KILL, KILL, KILLED, CONFIRMED], State.KILLED, [False, True, True, False, False]),
        ([STARTED, KILL, EXPIRED, CONFIRMED], State.EXPIRED, [False, True, False, False]),
        ([KILL, REFUSED], State.KILLED, [True, False]),
        ([LOST], State.FAILED, [False]),
        ([STARTED, LOST], State.CRASHED, [False, False]),
        ([STARTED, KILL, LOST], State.KILLED, [False, True, False]),
        ([REFUSED, STARTED], State.FAILED, [False, True]),
    ],
)
def test_orders_of_events(events: list[Event], last: State, ends: list[bool]) -> None:
    assert story(*events) == (last, ends)


ORDERS: dict[str, tuple[list[Event], State, int]] = {
    "a pause": ([PAUSE, PAUSED], State.PAUSED, 0),
    "a pause and a resume": ([PAUSE, PAUSED, RESUME, again(STARTED)], State.RUNNING, 0),
    "two pauses join": ([PAUSE, PAUSE, PAUSED, PAUSED], State.PAUSED, 0),
    "a pause of a paused one": ([PAUSE, PAUSED, PAUSE], State.PAUSED, 0),
    "a pause that is refused": ([PAUSE, PAUSE_REFUSED], State.RUNNING, 0),
    "one is refused, the other gets its result": (
        [PAUSE, PAUSED, PAUSE_REFUSED],
        State.PAUSED,
        0,
    ),
    '"running" is written late': ([PAUSE, STARTED, PAUSED, STARTED], State.PAUSED, 0),
    "a pause during a kill": ([KILL, PAUSE, CONFIRMED], State.KILLED, 1),
    "a kill during a pause": ([PAUSE, KILL, CONFIRMED], State.KILLED, 1),
    "a kill during a pause that ends first": ([PAUSE, KILL, PAUSED, CONFIRMED], State.KILLED, 2),
    "the kill found nothing, and then the pause ended": (
        [PAUSE, KILL, CONFIRMED, PAUSED],
        State.KILLED,
        2,
    ),
    "a kill of a paused one": ([PAUSE, PAUSED, KILL, CONFIRMED], State.KILLED, 1),
    "a resume during a pause has to wait": ([PAUSE, RESUME], State.PAUSING, 0),
    "a resume after a pause": ([PAUSE, RESUME, PAUSED, RESUME], State.RESUMING, 0),
    "two resumes at once": ([PAUSE, PAUSED, RESUME, RESUME], State.RESUMING, 0),
    "a resume that fails": ([PAUSE, PAUSED, RESUME, again(RESUME_FAILED)], State.PAUSED, 0),
    "the node says that a resume failed": (
        [PAUSE, PAUSED, RESUME, again(AUTO_PAUSED), again(RESUME_FAILED)],
        State.PAUSED,
        0,
    ),
    "a kill during a resume": (
        [PAUSE, PAUSED, RESUME, again(KILL), again(STARTED), again(CONFIRMED)],
        State.KILLED,
        2,
    ),
    "the kill overtook the resume": (
        [PAUSE, PAUSED, RESUME, again(KILL), again(CONFIRMED), again(STARTED)],
        State.KILLED,
        2,
    ),
    "the kill overtook the resume, which finds nothing": (
        [PAUSE, PAUSED, RESUME, again(KILL), again(CONFIRMED), again(RESUME_FAILED)],
        State.KILLED,
        1,
    ),
    "late words of the run before": (
        [PAUSE, PAUSED, RESUME, AUTO_PAUSED, EXPIRED, CRASHED, LOST, KILL, again(STARTED)],
        State.RUNNING,
        0,
    ),
    "its deadline pauses it": ([STARTED, AUTO_PAUSED], State.PAUSED, 0),
    'before "running" was written': ([AUTO_PAUSED, STARTED], State.PAUSED, 0),
    "its deadline pauses it while a pause is asked for": (
        [PAUSE, AUTO_PAUSED, PAUSED],
        State.PAUSED,
        0,
    ),
    "its deadline pauses it while a kill is asked for": (
        [KILL, AUTO_PAUSED, CONFIRMED],
        State.KILLED,
        2,
    ),
    "its deadline ends it while a pause is asked for": (
        [PAUSE, EXPIRED, PAUSE_REFUSED],
        State.EXPIRED,
        0,
    ),
    "it crashes while it is paused": ([PAUSE, CRASHED, PAUSE_REFUSED], State.CRASHED, 0),
    "nobody's word alone ends a paused one": (
        [PAUSE, PAUSED, CRASHED, EXPIRED],
        State.PAUSED,
        0,
    ),
    "lost": ([PAUSE, PAUSED, LOST], State.CRASHED, 0),
    "lost and found": ([PAUSE, LOST, PAUSED], State.PAUSED, 0),
}


@pytest.mark.parametrize("name", ORDERS)
def test_orders_of_pauses_and_resumes(name: str) -> None:
    events, last, ends = ORDERS[name]
    if events[0] is PAUSE:
        events = [STARTED, *events]
    state, ended = story(*events)
    assert (state, ended.count(True)) == (last, ends)


def test_nothing_is_paused_before_its_node_has_answered() -> None:
    assert story(PAUSE)[0] is State.CREATING


def test_a_failed_resume_says_nothing_new_of_its_snapshot() -> None:
    for event in (RESUME_FAILED, AUTO_PAUSED):
        assert handle(Record(RUN, State.RESUMING), event).paused is None
    assert handle(Record(RUN, State.PAUSING), PAUSED).paused is PAUSED


def test_the_node_knows_best_with_what_it_is_paused() -> None:
    files_only = Paused(RUN, MOMENT, memory=False)
    told = handle(Record(RUN, State.PAUSED), files_only)
    assert told.changes
    assert told.paused is files_only
    assert not handle(Record(RUN, State.PAUSED), AUTO_PAUSED).changes


def test_what_is_paused_holds_no_quota() -> None:
    assert {State.PAUSED} == LIVE - COUNTED


def test_a_kill_keeps_the_reason_it_was_asked_for_with() -> None:
    assert handle(Record(RUN, State.KILLING), KILLED).reason is None
    assert handle(Record(RUN, State.RUNNING), KILLED).reason == "asked"
    assert handle(Record(RUN, State.KILLING), EXPIRED).reason == "deadline"


@pytest.mark.parametrize("state", State)
def test_another_run_changes_nothing(state: State) -> None:
    for event in EVENTS:
        transition = handle(Record("another", state), event)
        assert not transition.changes
        assert not transition.instructions


@given(st.lists(st.sampled_from(EVENTS)))
def test_what_is_over_stays_over(events: list[Event]) -> None:
    record = Record(RUN, State.CREATING)
    for event in events:
        transition = handle(record, event)
        assert transition.before is record.state
        found = isinstance(event, Paused) and record.state is State.CRASHED
        if record.state not in LIVE and not found:
            assert not transition.changes
        record = after(record, transition)


@given(st.lists(st.sampled_from(EVENTS)))
def test_every_story_ends_when_the_node_is_silent(events: list[Event]) -> None:
    assert story(*events, LOST, again(LOST))[0] not in LIVE


@pytest.mark.parametrize("event", [REFUSED, UNKNOWN, LOST])
def test_a_create_that_failed_frees_its_idempotency_key(event: Event) -> None:
    assert handle(Record(RUN, State.CREATING), event).frees_idempotency_key


def test_a_kill_keeps_the_idempotency_key() -> None:
    assert not handle(Record(RUN, State.RUNNING), KILL).frees_idempotency_key


@pytest.mark.parametrize(
    ("state", "pauses", "after"),
    [
        (State.CREATING, False, State.FAILED),
        (State.RUNNING, False, State.EXPIRED),
        (State.RUNNING, True, State.PAUSED),
        (State.PAUSING, False, State.PAUSED),
        (State.PAUSED, True, State.PAUSED),
        (State.RESUMING, False, State.PAUSED),
        (State.KILLING, True, State.KILLED),
        (State.CRASHED, True, State.CRASHED),
    ],
)
def test_a_lease_that_ended(state: State, pauses: bool, after: State) -> None:
    transition = handle(Record(RUN, state), LeaseEnded(RUN, MOMENT, pauses, "unreachable"))
    assert transition.after is after
    assert after not in COUNTED


def test_a_pause_by_presumption_is_put_right_by_the_lists_of_the_node() -> None:
    presumed = handle(Record(RUN, State.RUNNING), replace(LEASE, pauses=True))
    assert presumed.paused == Paused(RUN, MOMENT)
    assert handle(Record(RUN, presumed.after), LOST).after is State.CRASHED
