"""Orders of events in the life of a record, without I/O."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberbox.api_server.records.lifecycle import (
    LIVE,
    EndConfirmed,
    Event,
    Instruction,
    KillAsked,
    Lost,
    OutcomeUnknown,
    Record,
    Refused,
    Reported,
    Started,
    State,
    handle,
)

RUN = "run"
STARTED = Started(RUN)
REFUSED = Refused(RUN, "full")
UNKNOWN = OutcomeUnknown(RUN, "deadline")
KILL = KillAsked(RUN)
CONFIRMED = EndConfirmed(RUN)
KILLED = Reported(RUN, State.KILLED, "asked")
EXPIRED = Reported(RUN, State.EXPIRED, "deadline")
CRASHED = Reported(RUN, State.CRASHED, "panic")
LOST = Lost(RUN, "absent")
EVENTS = (STARTED, REFUSED, UNKNOWN, KILL, CONFIRMED, KILLED, EXPIRED, CRASHED, LOST)


def story(*events: Event) -> tuple[State, list[bool]]:
    """The last state, and for each event whether the node is to be told to end it."""
    state, ends = State.CREATING, []
    for event in events:
        transition = handle(Record(RUN, state), event)
        state = transition.after
        ends.append(Instruction.END_ON_NODE in transition.instructions)
    return state, ends


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
    state = State.CREATING
    for event in events:
        transition = handle(Record(RUN, state), event)
        assert transition.before is state
        if state not in LIVE:
            assert not transition.changes
        state = transition.after


@given(st.lists(st.sampled_from(EVENTS)))
def test_every_story_ends_when_the_node_is_silent(events: list[Event]) -> None:
    assert story(*events, LOST)[0] not in LIVE


@pytest.mark.parametrize("event", [REFUSED, UNKNOWN, LOST])
def test_a_create_that_failed_frees_its_idempotency_key(event: Event) -> None:
    assert handle(Record(RUN, State.CREATING), event).frees_idempotency_key


def test_a_kill_keeps_the_idempotency_key() -> None:
    assert not handle(Record(RUN, State.RUNNING), KILL).frees_idempotency_key
