"""Decisions of `up`, as orders of events: no process is started here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberbox.cli.supervisor import (
    Announce,
    Answered,
    Begin,
    EndSandboxes,
    Event,
    Exited,
    Finish,
    Instruction,
    InvalidTransitionError,
    Kill,
    Phase,
    Policy,
    SandboxesEnded,
    Say,
    ShowLog,
    Start,
    State,
    StopAsked,
    Supervisor,
    Terminate,
    Tick,
)

NAMES = ["orchestrator", "api-server", "client-proxy"]


def new() -> Supervisor:
    return Supervisor(list(NAMES), "orchestrator", Policy())


def started(now: float = 0.0) -> Supervisor:
    supervisor = new()
    supervisor.handle(Begin(), now)
    return supervisor


def running(now: float = 0.0) -> Supervisor:
    supervisor = started(now)
    for name in NAMES:
        supervisor.handle(Answered(name, ready=True), now)
    return supervisor


def deeds(instructions: list[Instruction]) -> list[Instruction]:
    return [i for i in instructions if not isinstance(i, Say | ShowLog)]


def said(instructions: list[Instruction]) -> str:
    return "\n".join(i.text for i in instructions if isinstance(i, Say))


def test_all_start_in_order_and_the_last_answer_announces_once() -> None:
    supervisor = new()
    assert supervisor.handle(Begin(), 0.0) == [Start(name) for name in NAMES]
    assert deeds(supervisor.handle(Answered("api-server", ready=True), 1.0)) == []
    assert deeds(supervisor.handle(Answered("orchestrator", ready=True), 2.0)) == []
    assert deeds(supervisor.handle(Answered("client-proxy", ready=True), 3.0)) == [Announce()]


def test_a_second_begin_is_refused_with_the_story() -> None:
    with pytest.raises(InvalidTransitionError, match=r"Begin came twice\n0\.000 new: Begin"):
        started().handle(Begin(), 1.0)


def test_a_dead_program_starts_again_after_a_backoff_and_is_not_announced_again() -> None:
    supervisor = running()
    told = supervisor.handle(Exited("api-server", "signal SIGKILL"), 100.0)
    assert said(told) == "api-server died (signal SIGKILL); it starts again in 0.25 s"
    assert supervisor.wake_at() == 100.25
    assert supervisor.handle(Tick(), 100.2) == []
    assert supervisor.handle(Tick(), 100.25) == [Start("api-server")]
    again = supervisor.handle(Answered("api-server", ready=True), 101.0)
    assert again == [Say("api-server is ready again")]


def test_backoff_doubles_with_quick_deaths_and_a_long_life_forgets_them() -> None:
    supervisor = running()
    now, waits = 100.0, []
    for _ in range(4):
        supervisor.handle(Exited("api-server", "exit status 1"), now)
        due = supervisor.wake_at()
        assert due is not None
        waits.append(due - now)
        supervisor.handle(Tick(), due)
        now = due + 1.0
    assert waits == [0.25, 0.25, 0.5, 1.0]  # the first life was long
    supervisor.handle(Answered("api-server", ready=True), now)
    supervisor.handle(Exited("api-server", "exit status 1"), now + 60.0)
    assert supervisor.wake_at() == now + 60.25


def test_gives_up_on_a_program_that_never_gets_ready() -> None:
    supervisor = started()
    for now in (1.0, 2.0):
        supervisor.handle(Exited("orchestrator", "exit status 1"), now)
        supervisor.handle(Tick(), now + 0.5)
    last = supervisor.handle(Exited("orchestrator", "exit status 1"), 3.0)
    assert last[0] == ShowLog("orchestrator")
    assert "died 3 times (exit status 1): giving up" in said(last)
    assert deeds(last) == [Terminate("api-server"), Terminate("client-proxy")]
    supervisor.handle(Exited("api-server", "exit status 0"), 3.1)
    assert supervisor.handle(Exited("client-proxy", "exit status 0"), 3.2) == [Finish(1)]


def test_giving_up_keeps_the_sandboxes() -> None:
    supervisor = running()
    now, instructions = 1.0, list[Instruction]()
    for _ in range(Policy().tries):
        instructions = supervisor.handle(Exited("api-server", "exit status 1"), now)
        due = supervisor.wake_at()
        assert due is not None
        supervisor.handle(Tick(), due)
        now = due + 0.1
    assert supervisor.phase is Phase.STOPPING
    assert EndSandboxes() not in instructions
    assert deeds(instructions) == [Terminate("orchestrator"), Terminate("client-proxy")]


def test_a_program_that_never_answers_is_given_up_on() -> None:
    supervisor = started()
    late = supervisor.handle(Tick(), 60.0)
    assert "orchestrator is not ready after 60 s: giving up" in said(late)


def test_each_new_status_buys_time_and_the_last_one_is_told() -> None:
    supervisor = started()
    for name in NAMES[1:]:
        supervisor.handle(Answered(name, ready=True), 1.0)
    first = supervisor.handle(Answered("orchestrator", ready=False, status="root image 3 %"), 5.0)
    assert first == [Say("orchestrator: root image 3 %", passing=True)]
    assert supervisor.handle(Answered("orchestrator", False, "root image 3 %"), 900.0) == []
    assert supervisor.wake_at() == 1205.0
    supervisor.handle(Answered("orchestrator", False, "root image 4 %"), 1000.0)
    assert supervisor.handle(Tick(), 1205.0) == []
    assert "(still: root image 4 %)" in said(supervisor.handle(Tick(), 2200.0))


def test_stop_ends_the_sandboxes_first_then_the_programs() -> None:
    supervisor = running()
    assert supervisor.handle(StopAsked(), 10.0) == [EndSandboxes()]
    assert supervisor.handle(SandboxesEnded(), 11.0) == [Terminate(name) for name in NAMES]
    for name in NAMES[:2]:
        assert supervisor.handle(Exited(name, "exit status 0"), 12.0) == []
    assert supervisor.handle(Exited(NAMES[2], "exit status 0"), 12.0) == [Finish(0)]
    assert supervisor.wake_at() is None


def test_an_orchestrator_that_leaves_by_itself_at_the_end_is_no_death() -> None:
    supervisor = running()
    supervisor.handle(StopAsked(), 10.0)
    assert supervisor.handle(Exited("orchestrator", "exit status 0"), 10.5) == []
    assert deeds(supervisor.handle(SandboxesEnded(), 11.0)) == [
        Terminate("api-server"),
        Terminate("client-proxy"),
    ]


def test_the_second_ctrl_c_does_not_wait_for_sandboxes_and_the_third_kills() -> None:
    supervisor = running()
    supervisor.handle(StopAsked(), 10.0)
    assert deeds(supervisor.handle(StopAsked(), 10.5)) == [Terminate(name) for name in NAMES]
    assert supervisor.handle(SandboxesEnded(), 10.6) == []
    assert supervisor.handle(StopAsked(), 11.0) == [Kill(name) for name in NAMES]


def test_waiting_is_bounded_at_every_step_of_the_stop() -> None:
    supervisor = running()
    supervisor.handle(StopAsked(), 10.0)
    assert supervisor.wake_at() == 70.0
    assert deeds(supervisor.handle(Tick(), 70.0)) == [Terminate(name) for name in NAMES]
    assert supervisor.wake_at() == 85.0
    assert supervisor.handle(Tick(), 85.0) == [Kill(name) for name in NAMES]


def test_stop_while_the_orchestrator_is_down_does_not_ask_it() -> None:
    supervisor = running()
    supervisor.handle(Exited("orchestrator", "signal SIGKILL"), 100.0)
    stopped = supervisor.handle(StopAsked(), 100.1)
    assert deeds(stopped) == [Terminate("api-server"), Terminate("client-proxy")]
    assert supervisor.state("orchestrator") is State.ENDED


def test_stop_before_anything_started_leaves_at_once() -> None:
    assert new().handle(StopAsked(), 0.0) == [Finish(0)]


def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    supervisor = running()
    supervisor.handle(Exited("api-server", "exit status 1"), 100.0)
    assert supervisor.handle(Answered("api-server", ready=True), 100.1) == []
    assert supervisor.state("api-server") is State.WAITING


def test_an_end_without_a_process_is_refused() -> None:
    supervisor = running()
    supervisor.handle(Exited("api-server", "exit status 1"), 100.0)
    with pytest.raises(InvalidTransitionError, match="api-server has no process"):
        supervisor.handle(Exited("api-server", "exit status 1"), 100.1)


class World:
    """Processes as the instructions leave them: what must hold whatever happens."""

    def __init__(self) -> None:
        self.supervisor = new()
        self.alive: set[str] = set()
        self.announced = 0
        self.finished = 0

    def feed(self, event: Event, now: float) -> None:
        for instruction in self.supervisor.handle(event, now):
            match instruction:
                case Start(name):
                    assert name not in self.alive, "a program runs once"
                    self.alive.add(name)
                case Terminate(name) | Kill(name):
                    assert name in self.alive
                case Announce():
                    self.announced += 1
                case Finish():
                    assert not self.alive, "up leaves only when all ended"
                    self.finished += 1
                case _:
                    pass


MOVES = st.tuples(
    st.sampled_from(["answer", "wait", "exit", "stop", "ended", "tick"]),
    st.sampled_from(NAMES),
    st.floats(0.0, 30.0),
)


@given(st.lists(MOVES, max_size=40))
def test_no_order_of_events_starts_a_program_twice_or_leaves_one_behind(
    moves: list[tuple[str, str, float]],
) -> None:
    world, now = World(), 0.0
    world.feed(Begin(), now)
    for move, name, pause in moves:
        now += pause
        match move:
            case "exit" if name in world.alive:
                world.alive.remove(name)
                world.feed(Exited(name, "exit status 1"), now)
            case "answer" | "wait" if name in world.alive:
                world.feed(Answered(name, ready=move == "answer", status="working"), now)
            case "stop":
                world.feed(StopAsked(), now)
            case "ended":
                world.feed(SandboxesEnded(), now)
            case _:
                world.feed(Tick(), now)
    assert world.announced <= 1
    _stop_for_good(world, now)
    assert world.finished == 1


def _stop_for_good(world: World, now: float) -> None:
    for _ in range(3):
        world.feed(StopAsked(), now)
    for name in sorted(world.alive):
        world.alive.remove(name)
        world.feed(Exited(name, "signal SIGKILL"), now)
