"""The life of a sandbox, with races written down as orders of events."""

from __future__ import annotations

import pytest

from emberbox.orchestrator.sandboxes.lifecycle import (
    STORY_LINES,
    EndRequested,
    Event,
    Forget,
    Instruction,
    InvalidTransition,
    Lifecycle,
    MachineGone,
    Outcome,
    Reclaim,
    Reclaimed,
    Record,
    Report,
    Started,
    StartFailed,
    State,
)

KILL = EndRequested(Outcome.KILLED, "asked")
EXPIRE = EndRequested(Outcome.EXPIRED, "its deadline passed")


def lifecycle() -> Lifecycle:
    return Lifecycle("i123", lambda: 0.0)


def after(*events: Event) -> tuple[Lifecycle, list[Instruction]]:
    """The life after these events and what the last of them asked for."""
    life = lifecycle()
    instructions: list[Instruction] = []
    for event in events:
        instructions = life.handle(event)
    return life, instructions


def test_an_ordinary_life_is_recorded_reclaimed_and_reported_in_that_order() -> None:
    life = lifecycle()
    assert life.handle(Started()) == []
    assert life.handle(KILL) == [Record(Outcome.KILLED, "asked"), Reclaim()]
    assert life.handle(Reclaimed()) == [Report(Outcome.KILLED, "asked"), Forget()]
    assert life.state is State.ENDED


def test_a_failed_start_is_reclaimed_and_nobody_is_told_but_the_caller() -> None:
    life, instructions = after(StartFailed("no memory"))
    assert instructions == [Record(Outcome.FAILED, "no memory"), Reclaim()]
    assert life.handle(Reclaimed()) == [Forget()]


@pytest.mark.parametrize("outcome_of_start", [Started(), StartFailed("too late")])
def test_a_kill_while_starting_waits_for_the_start_and_then_reclaims(
    outcome_of_start: Event,
) -> None:
    life, instructions = after(KILL)
    assert instructions == [Record(Outcome.KILLED, "asked")]
    assert life.handle(outcome_of_start) == [Reclaim()]
    assert life.handle(Reclaimed()) == [Report(Outcome.KILLED, "asked"), Forget()]


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (KILL, EXPIRE, Outcome.KILLED),
        (EXPIRE, KILL, Outcome.EXPIRED),
        (KILL, MachineGone("killed"), Outcome.KILLED),
        (MachineGone("panic"), KILL, Outcome.CRASHED),
        (MachineGone("panic"), EXPIRE, Outcome.CRASHED),
    ],
)
def test_of_two_ends_the_first_is_the_truth_and_the_second_joins_it(
    first: Event, second: Event, outcome: Outcome
) -> None:
    life, _ = after(Started(), first)
    assert life.handle(second) == []
    report = life.handle(Reclaimed())[0]
    assert isinstance(report, Report)
    assert report.outcome is outcome


@pytest.mark.parametrize("late", [KILL, EXPIRE, MachineGone("gone")])
def test_what_comes_after_the_end_changes_nothing(late: Event) -> None:
    life, _ = after(Started(), KILL, Reclaimed())
    assert life.handle(late) == []
    assert life.state is State.ENDED


def test_a_machine_that_dies_while_starting_is_a_failed_start() -> None:
    _, instructions = after(MachineGone("panic"))
    assert instructions == [Record(Outcome.FAILED, "panic"), Reclaim()]


def test_an_impossible_event_tells_the_story() -> None:
    life, _ = after(Started())
    with pytest.raises(InvalidTransition, match=r"starting → running.*running: Reclaimed"):
        life.handle(Reclaimed())


def test_the_story_keeps_every_event_with_its_reason() -> None:
    life, _ = after(Started(), MachineGone("kernel panic"), Reclaimed())
    assert [text for _, text in life.story] == [
        "starting → running: Started",
        "running → ending: MachineGone  kernel panic",
        "ending → ended: Reclaimed",
    ]


def test_the_story_is_bounded_and_keeps_the_latest() -> None:
    life = lifecycle()
    for number in range(STORY_LINES + 5):
        life.note(str(number))
    assert len(life.story) == STORY_LINES
    assert life.story[-1][1] == str(STORY_LINES + 4)
