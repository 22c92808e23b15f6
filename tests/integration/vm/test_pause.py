"""Sandboxes are paused and resumed, and whatever dies in between, none is lost."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.orchestrator import failpoints
from emberbox.orchestrator.snapshots.manifest import Snapshot
from emberbox.orchestrator.snapshots.store import MANIFEST_FILE
from tests.integration.vm.pausing import Orchestrator, PausableSandbox, failpoint_file
from tests.stack import Stack, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

ROUNDS = 10
MIB = 100
# Every line is the one before plus one: a line that was lost or written twice shows.
APPENDER = """
import os, time
number = 0
with open("/root/appended", "a") as file:
    while True:
        number += 1
        file.write(f"{number}\\n")
        file.flush()
        time.sleep(0.02)
"""


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


@dataclasses.dataclass
class Life:
    """What must survive in a guest: a process, files in memory and on the disk."""

    sandbox: PausableSandbox
    boot_id: str = ""
    pid: str = ""
    sums: str = ""
    lines: int = 0

    def begin(self, mib: int) -> None:
        """Start the process and write the files."""
        self.boot_id = self.sandbox.run("cat /proc/sys/kernel/random/boot_id")
        self.pid = self.sandbox.run(
            f"cat > /root/appender.py <<'END'\n{APPENDER}\nEND\n"
            f"head -c {mib}M /dev/urandom > /dev/shm/data\n"
            f"head -c {mib}M /dev/urandom > /root/data\n"
            "setsid python3 /root/appender.py > /dev/null 2>&1 < /dev/null & echo $!"
        )
        self.sums = self.sandbox.run("sha256sum /dev/shm/data /root/data")

    def check(self) -> None:
        """It goes on where it was."""
        assert self.sandbox.run("cat /proc/sys/kernel/random/boot_id") == self.boot_id
        assert self.sandbox.run("sha256sum /dev/shm/data /root/data") == self.sums
        wait_until(self._has_gone_on, 60)
        assert self.sandbox.run(f"cat /proc/{self.pid}/comm").startswith("python3")

    def check_files(self) -> None:
        """Another boot with every file."""
        assert self.sandbox.run("cat /proc/sys/kernel/random/boot_id") != self.boot_id
        disk_sum = self.sums.splitlines()[1]
        assert self.sandbox.run("sha256sum /root/data") == disk_sum
        assert self._count_lines() >= self.lines

    def _has_gone_on(self) -> bool:
        before, self.lines = self.lines, self._count_lines()
        assert self.lines >= before
        return self.lines > before

    def _count_lines(self) -> int:
        """All whole lines, each with the number that it must have."""
        return int(
            self.sandbox.run(
                'python3 -c \'lines = open("/root/appended").read().split("\\n")[:-1];'
                " assert lines == [str(i + 1) for i in range(len(lines))]; print(len(lines))'"
            )
        )


def test_ten_times_paused_and_resumed_nothing_is_missing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(MIB)
    for _ in range(ROUNDS):
        began = time.monotonic()
        snapshot = sandbox.pause()
        between = time.monotonic()
        assert snapshot.memory
        assert sandbox.sandbox_id in sandbox.orchestrator.paused()
        assert not (stack.home.run_directories / sandbox.sandbox_id).exists()
        answer = sandbox.resume()
        ended = time.monotonic()
        assert answer.notice == ""
        steps = {step.name: round(step.milliseconds) for step in answer.steps}
        print(
            f"pause {between - began:.3f} s, resume {ended - between:.3f} s {steps},"
            f" memory {snapshot.memory_bytes >> 20} MiB, disk {snapshot.disk_bytes >> 20} MiB"
        )
        life.check()
        clock = int(sandbox.run("date +%s"))
        assert abs(clock - time.time()) < 5
    assert sandbox.run("hostname") == sandbox.sandbox_id


def test_an_orchestrator_killed_at_any_step_of_pause_loses_nothing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(1)
    for step in (*failpoints.PAUSE_BEFORE_COMMIT, *failpoints.PAUSE_AFTER_COMMIT):
        failpoint_file(stack).write_text(f"{step}:crash")
        with pytest.raises(grpc.RpcError):
            sandbox.pause()
        assert not failpoint_file(stack).exists(), step
        state = sandbox.settle()
        assert state == ("running" if step in failpoints.PAUSE_BEFORE_COMMIT else "paused"), step
        if state == "paused":
            assert sandbox.resume().notice == ""
        life.check()
        wait_until(lambda: not snapshots_of(stack, sandbox), 20)
        print(step, state)


def test_an_orchestrator_killed_at_any_step_of_resume_loses_nothing(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(1)
    for step in (*failpoints.RESUME_BEFORE_CONSUMED, *failpoints.RESUME_AFTER_CONSUMED):
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
        print(step, state)


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


def test_after_an_upgrade_it_boots_from_its_files_and_says_so(
    stack: Stack, sandbox: PausableSandbox
) -> None:
    sandbox.create(env_vars={"KEPT": "yes"})
    life = Life(sandbox)
    life.begin(4)
    life.check()
    sandbox.pause()
    path = stack.home.snapshots / sandbox.sandbox_id / MANIFEST_FILE
    snapshot = Snapshot.from_json(path.read_bytes())
    older = dataclasses.replace(snapshot, made_with="an older VMM", envd_version="0.0.1")
    path.write_bytes(older.to_json())

    answer = sandbox.resume()
    assert "booted from its files" in answer.notice
    assert "an older VMM" in answer.notice
    assert any("an older VMM" in line for line in stack.story_of(sandbox.sandbox_id))
    life.check_files()
    assert sandbox.run("echo $KEPT") == "yes"

    # What was booted can be paused with its memory, too.
    life.begin(4)
    life.check()
    assert sandbox.pause().memory
    assert sandbox.resume().notice == ""
    life.check()


def test_files_alone(sandbox: PausableSandbox) -> None:
    sandbox.create()
    life = Life(sandbox)
    life.begin(4)
    life.check()
    snapshot = sandbox.pause(files_only=True)
    assert (snapshot.memory, snapshot.memory_bytes) == (False, 0)
    assert sandbox.resume().notice == ""
    life.check_files()


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
