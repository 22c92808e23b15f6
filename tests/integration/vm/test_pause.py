"""Sandboxes are paused and resumed, and whatever dies in between, none is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.orchestrator import failpoints
from tests.integration.vm.pausing import Life, Orchestrator, PausableSandbox, failpoint_file
from tests.stack import Stack, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

ROUNDS = 10
MIB = 100
DEATHS = 4
KILLS = 20
LONGEST_CALL = 0.6


@pytest.fixture
def sandbox(stack: Stack) -> Iterator[PausableSandbox]:
    made = PausableSandbox(Orchestrator(stack))
    yield made
    made.kill()
    assert made.sandbox_id not in made.orchestrator.paused()
    assert not list(snapshots_of(stack, made))


def snapshots_of(stack: Stack, sandbox: PausableSandbox) -> list[str]:
    """Everything of it in the store of snapshots, half or whole."""
    return [p.name for p in stack.home.snapshots.iterdir() if sandbox.sandbox_id in p.name]


def with_patience(stack: Stack, *steps: str) -> Iterator[str]:
    """The steps, with another `up` now and then: each gives up on a program that dies so often."""
    for number, step in enumerate(steps, 1):
        yield step
        if number % DEATHS == 0 or number == len(steps):
            stack.kill_up()
            stack.start()


def go_away_and_back(stack: Stack, sandbox: PausableSandbox, *, mib: int, rounds: int) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(mib)
    for _ in range(rounds):
        snapshot = sandbox.pause()
        assert snapshot.memory
        assert sandbox.sandbox_id in sandbox.orchestrator.paused()
        wait_until(lambda: not (stack.home.run_directories / sandbox.sandbox_id).exists(), 20)
        assert sandbox.resume().notice == ""
        life.check()
        clock = int(sandbox.run("date +%s"))
        assert abs(clock - time.time()) < 5
    assert sandbox.run("hostname") == sandbox.sandbox_id


def test_paused_and_resumed_nothing_is_missing(stack: Stack, sandbox: PausableSandbox) -> None:
    go_away_and_back(stack, sandbox, mib=8, rounds=2)


@pytest.mark.exhaustive
def test_ten_times_paused_and_resumed_nothing_is_missing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    go_away_and_back(stack, sandbox, mib=MIB, rounds=ROUNDS)


def die_while_pausing(stack: Stack, sandbox: PausableSandbox, life: Life, step: str) -> None:
    failpoint_file(stack).write_text(f"{step}:crash")
    committed = step in failpoints.PAUSE_AFTER_COMMIT
    # Some of the steps are after the answer.
    if committed:
        with contextlib.suppress(grpc.RpcError):
            sandbox.pause()
    else:
        with pytest.raises(grpc.RpcError):
            sandbox.pause()
    wait_until(lambda: not failpoint_file(stack).exists(), 20)
    assert sandbox.settle() == ("paused" if committed else "running"), step
    if committed:
        assert sandbox.resume().notice == ""
    life.check()
    wait_until(lambda: not snapshots_of(stack, sandbox), 20)


def die_while_resuming(stack: Stack, sandbox: PausableSandbox, life: Life, step: str) -> None:
    sandbox.pause()
    failpoint_file(stack).write_text(f"{step}:crash")
    with pytest.raises(grpc.RpcError):
        sandbox.resume()
    assert not failpoint_file(stack).exists(), step
    state = sandbox.settle()
    assert state == ("running" if step in failpoints.RESUME_AFTER_CONSUMED else "paused"), step
    if state == "paused":
        assert snapshots_of(stack, sandbox) == [sandbox.sandbox_id]
        assert sandbox.resume().notice == ""
    life.check()
    wait_until(lambda: not snapshots_of(stack, sandbox), 20)


def test_an_orchestrator_killed_while_it_pauses_or_resumes_loses_nothing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(1)
    die_while_pausing(stack, sandbox, life, "pause-linked")
    die_while_resuming(stack, sandbox, life, "resume-consumed")
    stack.kill_up()
    stack.start()


@pytest.mark.exhaustive
def test_an_orchestrator_killed_at_any_step_of_pause_loses_nothing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(1)
    steps = (*failpoints.PAUSE_BEFORE_COMMIT, *failpoints.PAUSE_AFTER_COMMIT)
    for step in with_patience(stack, *steps):
        die_while_pausing(stack, sandbox, life, step)


@pytest.mark.exhaustive
def test_an_orchestrator_killed_at_any_step_of_resume_loses_nothing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(1)
    steps = (*failpoints.RESUME_BEFORE_CONSUMED, *failpoints.RESUME_AFTER_CONSUMED)
    for step in with_patience(stack, *steps):
        die_while_resuming(stack, sandbox, life, step)


@pytest.mark.exhaustive
def test_an_orchestrator_killed_at_any_instant_loses_nothing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    seed = time.time_ns()
    instants = random.Random(seed)
    sandbox.create()
    life = Life(sandbox)
    life.begin(1)
    state = "running"
    for number in with_patience(stack, *map(str, range(KILLS))):
        call = sandbox.pause if state == "running" else sandbox.resume
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(call)
            time.sleep(instants.uniform(0, LONGEST_CALL))
            stack.kill_program("orchestrator")
            told = answer.exception()
        assert told is None or isinstance(told, grpc.RpcError)
        state = sandbox.settle()
        if state == "running":
            life.check()
        assert sandbox.orchestrator.paused().keys() <= {sandbox.sandbox_id}, (seed, number)
    if state == "paused":
        assert sandbox.resume().notice == "", seed
    life.check()


@pytest.mark.exhaustive
def test_a_step_that_fails_is_told_and_changes_nothing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(1)
    for step in ("pause-stopped", "pause-linked", "pause-described"):
        failpoint_file(stack).write_text(f"{step}:error")
        with pytest.raises(grpc.RpcError, match=f"told to fail at {step}"):
            sandbox.pause()
        life.check()
    sandbox.pause()
    for step in ("resume-begun", "resume-loaded", "resume-recorded"):
        failpoint_file(stack).write_text(f"{step}:error")
        with pytest.raises(grpc.RpcError, match=f"told to fail at {step}"):
            sandbox.resume()
        assert sandbox.sandbox_id in sandbox.orchestrator.paused()
    sandbox.resume()
    life.check()


@pytest.mark.exhaustive
def test_files_alone(sandbox: PausableSandbox) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(4)
    life.check()
    snapshot = sandbox.pause(files_only=True)
    assert (snapshot.memory, snapshot.memory_bytes) == (False, 0)
    assert sandbox.resume().notice == ""
    life.check_files()


@pytest.mark.exhaustive
def test_a_deadline_pauses_and_the_paused_survive_the_end_of_up(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create(auto_pause=True)
    life = Life(sandbox)
    life.begin(1)
    life.check()
    soon = pb.SandboxUpdateRequest(sandbox_id=sandbox.sandbox_id)
    soon.end_time.FromSeconds(int(time.time()) + 1)
    sandbox.orchestrator.call("Update", soon)
    wait_until(lambda: sandbox.sandbox_id in sandbox.orchestrator.paused(), 60)
    with stack.stopped():
        assert not list(stack.home.run_directories.iterdir())
    sandbox.resume()
    life.check()


@pytest.mark.exhaustive
def test_of_two_resumes_and_a_pause_at_once_one_wins(sandbox: PausableSandbox) -> None:
    sandbox.create()
    sandbox.pause()
    twin = dataclasses.replace(sandbox)
    sandbox.resume()
    with pytest.raises(grpc.RpcError) as refused:
        twin.resume()
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError) as other:
        twin.pause()
    assert other.value.code() is grpc.StatusCode.ALREADY_EXISTS
