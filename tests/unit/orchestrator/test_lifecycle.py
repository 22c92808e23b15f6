"""The life of a sandbox, with races written down as orders of events."""

from __future__ import annotations

import pytest

from emberbox.orchestrator.sandboxes.lifecycle import (
    STORY_LINES,
    CheckpointRequested,
    Copied,
    Copy,
    EndRequested,
    Event,
    Forget,
    Instruction,
    InvalidTransition,
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

KILL = EndRequested(Outcome.KILLED, "asked")
EXPIRE = EndRequested(Outcome.EXPIRED, "its deadline passed")


PAUSE = PauseRequested("asked")
AUTO_PAUSE = PauseRequested("its deadline passed", files_only=True)
PAUSED = [Report(Outcome.PAUSED, "asked"), Forget()]


def lifecycle(*, resumed: bool = False) -> Lifecycle:
    return Lifecycle("i123", lambda: 0.0, resumed)


def after(*events: Event, resumed: bool = False) -> tuple[Lifecycle, list[Instruction]]:
    """The life after these events and what the last of them asked for."""
    life = lifecycle(resumed=resumed)
    instructions: list[Instruction] = []
    for event in events:
        instructions = life.handle(event)
    return life, instructions


def test_an_ordinary_life_is_recorded_reclaimed_and_reported_in_that_order() -> None:
    life = lifecycle()
    assert life.handle(Started()) == []
    assert life.handle(KILL) == [Record(Outcome.KILLED, "asked"), Reclaim()]
    assert life.handle(Reclaimed()) == [Report(Outcome.KILLED, "asked"), Forget(discard=True)]
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
    assert life.handle(Reclaimed()) == [Report(Outcome.KILLED, "asked"), Forget(discard=True)]


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


# Pausing


def test_a_pause_saves_then_ends_the_run_and_keeps_the_snapshot() -> None:
    life, instructions = after(Started(), PAUSE)
    assert life.state is State.PAUSING
    assert instructions == [Suspend(files_only=False)]
    assert life.handle(Saved()) == [Record(Outcome.PAUSED, "asked"), Reclaim()]
    assert life.handle(Reclaimed()) == PAUSED


def test_a_pause_that_fails_lets_it_run_on_and_the_next_is_a_new_one() -> None:
    life, instructions = after(Started(), PAUSE, PauseFailed("disk full"))
    assert life.state is State.RUNNING
    assert instructions == []
    assert life.handle(AUTO_PAUSE) == [Suspend(files_only=True)]
    assert life.handle(Saved())[0] == Record(Outcome.PAUSED, "its deadline passed")


@pytest.mark.parametrize("second", [PAUSE, AUTO_PAUSE, EXPIRE])
def test_a_second_pause_joins_and_a_deadline_while_pausing_is_not_heeded(second: Event) -> None:
    life, instructions = after(Started(), PAUSE, second)
    assert instructions == []
    life.handle(Saved())
    assert life.handle(Reclaimed()) == PAUSED


@pytest.mark.parametrize("outcome_of_saving", [Saved(), PauseFailed("too late")])
def test_a_kill_while_pausing_waits_for_the_end_of_saving_and_leaves_no_snapshot(
    outcome_of_saving: Event,
) -> None:
    life, instructions = after(Started(), PAUSE, KILL)
    assert instructions == [Record(Outcome.KILLED, "asked")]
    assert life.handle(PAUSE) == []
    assert life.handle(outcome_of_saving) == [Reclaim()]
    assert life.handle(Reclaimed()) == [Report(Outcome.KILLED, "asked"), Forget(discard=True)]


def test_a_machine_that_dies_while_pausing_is_paused_when_all_was_saved() -> None:
    life, instructions = after(Started(), PAUSE, MachineGone("killed"))
    assert instructions == []
    assert life.handle(Saved()) == [Record(Outcome.PAUSED, "asked"), Reclaim()]
    assert life.handle(Reclaimed()) == PAUSED


def test_a_machine_that_dies_while_pausing_has_crashed_when_it_was_not() -> None:
    life, instructions = after(Started(), PAUSE, MachineGone("killed"), PauseFailed("gone"))
    assert instructions == [Record(Outcome.CRASHED, "killed"), Reclaim()]
    assert life.handle(Reclaimed()) == [Report(Outcome.CRASHED, "killed"), Forget(discard=True)]


def test_a_death_in_an_earlier_pause_does_not_count_in_the_next() -> None:
    life, _ = after(Started(), PAUSE, PauseFailed("disk full"), PAUSE, PauseFailed("disk full"))
    assert life.state is State.RUNNING


@pytest.mark.parametrize("late", [KILL, EXPIRE, PAUSE, MachineGone("stopped")])
def test_what_comes_after_the_commit_joins_the_pause(late: Event) -> None:
    life, _ = after(Started(), PAUSE, Saved())
    assert life.handle(late) == []
    assert life.handle(Reclaimed()) == PAUSED
    assert life.handle(late) == []


@pytest.mark.parametrize("end", [KILL, EXPIRE, MachineGone("panic")])
def test_a_pause_of_what_is_ending_changes_nothing(end: Event) -> None:
    life, _ = after(Started(), end)
    assert life.handle(PAUSE) == []
    report = life.handle(Reclaimed())[0]
    assert isinstance(report, Report)
    assert report.outcome is not Outcome.PAUSED


# Resuming


@pytest.mark.parametrize("failure", [StartFailed("no memory"), MachineGone("no memory")])
def test_a_resume_that_fails_is_paused_as_before(failure: Event) -> None:
    why = "it could not be resumed: no memory"
    life, instructions = after(failure, resumed=True)
    assert instructions == [Record(Outcome.PAUSED, why), Reclaim()]
    assert life.handle(Reclaimed()) == [Report(Outcome.PAUSED, why), Forget()]


@pytest.mark.parametrize("outcome_of_start", [Started(), StartFailed("too late")])
def test_a_kill_while_resuming_leaves_no_snapshot(outcome_of_start: Event) -> None:
    life, instructions = after(KILL, resumed=True)
    assert instructions == [Record(Outcome.KILLED, "asked")]
    assert life.handle(outcome_of_start) == [Reclaim()]
    assert life.handle(Reclaimed()) == [Report(Outcome.KILLED, "asked"), Forget(discard=True)]


def test_a_resumed_one_lives_like_any_other() -> None:
    life, _ = after(Started(), PAUSE, Saved(), resumed=True)
    assert life.handle(Reclaimed()) == PAUSED
    life, instructions = after(Started(), MachineGone("panic"), resumed=True)
    assert instructions == [Record(Outcome.CRASHED, "panic"), Reclaim()]


def test_what_was_found_paused_after_a_crash_is_ended_as_paused() -> None:
    found = EndRequested(Outcome.PAUSED, "its snapshot was whole")
    life, _ = after(found, Started())
    assert life.handle(Reclaimed()) == [Report(Outcome.PAUSED, "its snapshot was whole"), Forget()]


# Copying

COPY = CheckpointRequested()


def test_a_checkpoint_copies_and_it_runs_on() -> None:
    life, instructions = after(Started(), COPY)
    assert instructions == [Copy()]
    assert life.handle(Copied()) == []
    assert life.state is State.RUNNING


@pytest.mark.parametrize("end", [KILL, EXPIRE])
def test_an_end_while_copying_waits_for_the_copy(end: EndRequested) -> None:
    life, instructions = after(Started(), COPY, end)
    assert instructions == [Record(end.outcome, end.reason)]
    assert life.handle(PAUSE) == []
    assert life.handle(Copied()) == [Reclaim()]


def test_a_pause_while_copying_follows_it_once() -> None:
    life, instructions = after(Started(), COPY, AUTO_PAUSE)
    assert instructions == []
    life.handle(PAUSE)
    assert life.handle(Copied()) == [Suspend(files_only=True)]
    assert life.state is State.PAUSING


def test_a_machine_that_dies_while_copying_has_crashed() -> None:
    life, instructions = after(Started(), COPY, MachineGone("panic"))
    assert instructions == []
    assert life.handle(Copied()) == [Record(Outcome.CRASHED, "panic"), Reclaim()]
