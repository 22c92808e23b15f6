"""The warm pool with real VMs: what a claimed clone is, whose a clone is before, what a crash
leaves."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox import Sandbox
from emberbox.orchestrator import failpoints
from emberbox.orchestrator.network.rules import DENY_SET, FORWARDED_SET
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, SandboxRecord
from tests.integration.vm.pausing import Orchestrator, PausableSandbox, failpoint_file
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

IDENTITY = """
hostname; cat /etc/hostname /etc/machine-id; echo $E2B_SANDBOX_ID $GREETING
date +%s; head -c 16 /dev/urandom | base64; cat /proc/sys/kernel/random/uuid
"""


def clone_of(sandbox: Sandbox, stack: Stack) -> str:
    """The warm clone that a sandbox was; empty when it was made otherwise."""
    told = [line for line in stack.story_of(sandbox.sandbox_id) if "made of the warm" in line]
    return told[0].split()[-1] if told else ""


def record_of_clone(stack: Stack, name: str) -> SandboxRecord:
    return SandboxRecord.from_json((stack.home.pool / name / RECORD_FILE).read_bytes())


def test_a_warm_clone_becomes_a_sandbox_of_its_own(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    ready = stack.wait_for_warm_clones()
    sandboxes = [create(envs={"GREETING": f"hello-{number}"}) for number in range(2)]
    clones = [clone_of(sandbox, stack) for sandbox in sandboxes]
    assert len(set(clones) & ready) == 2

    seen = []
    for number, sandbox in enumerate(sandboxes):
        assert sandbox.commands.list() == []
        told = sandbox.commands.run(IDENTITY).stdout.split()
        name, etc, machine, known, greeting, now, *drawn = told
        assert name == etc == known == sandbox.sandbox_id
        assert greeting == f"hello-{number}"
        assert abs(int(now) - time.time()) < 30
        seen += [machine, *drawn]
    assert len(set(seen)) == len(seen)


def test_a_warm_clone_answers_to_its_own_token_alone(stack: Stack) -> None:
    stack.wait_for_warm_clones()
    first, second = (PausableSandbox(Orchestrator(stack)) for _ in range(2))
    try:
        for sandbox in (first, second):
            assert "claim" in [step.name for step in sandbox.create().steps]
            assert sandbox.run("echo mine") == "mine"
        assert first.refuses(second.token)
        assert first.refuses("")
    finally:
        first.kill()
        second.kill()


def test_warm_clones_are_nobodys_and_have_no_way_out(stack: Stack) -> None:
    clones = stack.wait_for_warm_clones()
    assert Sandbox.list(**stack.sdk).next_items() == []
    assert f"warm clones: {len(clones)} ready" in stack.emberbox(
        "sandboxes", "--orchestrator", f"127.0.0.1:{stack.ports.orchestrator}"
    )
    network = stack.network
    for name in clones:
        slot = network.slot(record_of_clone(stack, name).slot)
        assert "0.0.0.0/0" in _set_in(slot.netns, network.table, DENY_SET)
        assert "elements" not in _set_in(slot.netns, network.table, FORWARDED_SET)


@pytest.mark.exhaustive
def test_more_at_once_than_there_are_clones(create: Callable[..., Sandbox], stack: Stack) -> None:
    ready = stack.wait_for_warm_clones()
    with ThreadPoolExecutor(len(ready) + 2) as threads:
        sandboxes = list(threads.map(lambda _: create(), range(len(ready) + 2)))
    assert ready <= {clone_of(sandbox, stack) for sandbox in sandboxes}
    for sandbox in sandboxes:
        assert sandbox.commands.run("echo here").stdout == "here\n"


def test_warm_clones_outlive_sigkill_of_the_orchestrator(
    create: Callable[..., Sandbox], stack: Stack
) -> None:
    before = {name: record_of_clone(stack, name) for name in stack.wait_for_warm_clones()}
    stack.kill_program("orchestrator")
    wait_until(stack.template_ready, 30)
    sandbox = create()
    assert before[clone_of(sandbox, stack)].process == stack.record_of(sandbox.sandbox_id).process
    assert sandbox.commands.run("echo works").stdout == "works\n"


@pytest.mark.exhaustive
def test_a_crash_in_the_middle_of_a_claim_leaves_nothing(stack: Stack) -> None:
    orchestrator = Orchestrator(stack)
    for step in failpoints.CLAIM:
        before = stack.wait_for_warm_clones()
        failpoint_file(stack).write_text(f"{step}:crash")
        sandbox = PausableSandbox(orchestrator)
        with pytest.raises(grpc.RpcError):
            sandbox.create()
        assert not failpoint_file(stack).exists(), step
        wait_until(stack.template_ready, 30)
        wait_until(lambda: not list(stack.home.run_directories.iterdir()), 30)
        after = stack.wait_for_warm_clones()
        # One was lost to the claim, and the others are as they were.
        assert len(before - after) == 1, step
        assert set(orchestrator.running()) == set(), step
        sandbox.create()
        sandbox.kill()


def _set_in(netns: str, table: str, name: str) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", netns, "nft", "list", "set", "inet", table, name],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
