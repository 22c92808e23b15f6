"""Pause and resume on a host made of stand-ins: whatever fails, no sandbox is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.orchestrator.errors import (
    AdmissionRefused,
    GuestUnhealthy,
    GuestUnreachable,
    MachineError,
    RunConflict,
    SandboxMissing,
    SnapshotUnusable,
)
from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested, State
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE
from emberbox.orchestrator.snapshots.store import MEMORY_LOST
from tests.unit.orchestrator.sandbox_world import IDENTITY, ended, record, request, template

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.processes import ProcessIdentity
    from emberbox.orchestrator.sandboxes.beginning import CreateRequest
    from emberbox.orchestrator.sandboxes.sandbox import Sandbox
    from emberbox.orchestrator.snapshots.manifest import Snapshot
    from tests.unit.orchestrator.sandbox_world import Setting


def resuming(execution_id: str = "e-2", **more: Any) -> CreateRequest:
    identity = dataclasses.replace(IDENTITY, execution_id=execution_id)
    return request(identity=identity, snapshot=True, **more)


async def pause(setting: Setting, execution_id: str = "e-1", **more: Any) -> Snapshot:
    return await setting.sandboxes.pause("iabc", execution_id, PauseRequested("asked", **more))


async def paused(setting: Setting, **more: Any) -> Snapshot:
    """A sandbox that was made and paused."""
    await setting.sandboxes.create(request())
    return await pause(setting, **more)


def files(setting: Setting) -> list[str]:
    """What there is of snapshots."""
    return sorted(
        path.name for path in setting.host.snapshots.place("x").directory.parent.iterdir()
    )


async def until_pausing(setting: Setting) -> Sandbox:
    sandbox = setting.sandboxes.get("iabc")
    await until(lambda: sandbox.state is State.PAUSING)
    return sandbox


async def until(condition: Callable[[], bool]) -> None:
    """Return when it is so; fails after a while."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never was so")


async def test_a_paused_sandbox_leaves_nothing_but_its_snapshot(setting: Setting) -> None:
    snapshot = await paused(setting)
    assert (snapshot.execution_id, snapshot.memory, snapshot.memory_bytes) == ("e-1", True, 6)
    assert (snapshot.made_with, snapshot.images, snapshot.envd_token) == (
        "vmm",
        {"root": "root-1"},
        "token",
    )
    assert setting.left() == []
    assert setting.outcomes() == [("paused", "asked")]
    assert await setting.sandboxes.paused() == [snapshot]
    steps = ["sync", "pause machine", "save", "stop", "release"]
    assert [step for step in setting.world.done if step in steps] == steps


async def test_a_resumed_one_has_its_disk_and_the_snapshot_is_gone(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    scratch = setting.host.directories.path("iabc") / SCRATCH_FILE
    scratch.write_bytes(b"what the user wrote")
    inode = scratch.stat().st_ino
    await pause(setting)
    sandbox = await setting.sandboxes.create(resuming())
    assert sandbox.record.execution_id == "e-2"
    assert sandbox.record.notice == ""
    assert scratch.stat().st_ino == inode
    assert setting.world.machine
    assert setting.world.machine.running
    assert setting.world.presented[-1][0] == "token"
    await until(lambda: not files(setting))
    # And again, as often as one likes.
    again = await pause(setting, "e-2")
    assert again.execution_id == "e-2"
    await setting.sandboxes.create(resuming("e-3"))
    await setting.sandboxes.delete("iabc", "asked")
    assert (setting.left(), files(setting)) == ([], [])
    assert [outcome for outcome, _ in setting.outcomes()] == ["paused", "paused", "killed"]


async def test_files_alone_are_booted_with_the_environment_they_had(setting: Setting) -> None:
    identity = dataclasses.replace(IDENTITY, env_vars={"A": "b"})
    await setting.sandboxes.create(request(identity=identity))
    snapshot = await pause(setting, files_only=True)
    assert not snapshot.memory
    assert "save" not in setting.world.done
    sandbox = await setting.sandboxes.create(resuming())
    assert "boot" in setting.world.done
    assert sandbox.record.booted
    assert setting.world.presented[-1][1].env_vars == {"A": "b"}
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize("step", ["pause machine", "save"])
async def test_a_pause_that_fails_lets_it_run_on_and_the_caller_knows(
    setting: Setting, step: str
) -> None:
    sandbox = await setting.sandboxes.create(request())
    setting.world.fails_at, setting.world.failure = step, OSError(errno.ENOSPC, "disk full")
    with pytest.raises(OSError, match="disk full"):
        await pause(setting)
    assert sandbox.state is State.RUNNING
    assert setting.world.machine
    assert setting.world.machine.running
    assert files(setting) == []
    await pause(setting)
    assert setting.outcomes() == [("paused", "asked")]


async def test_a_full_disk_refuses_a_pause_before_anything_is_touched(setting: Setting) -> None:
    sandbox = await setting.sandboxes.create(request())
    object.__setattr__(setting.host, "pause_reserve_mb", 1 << 40)
    with pytest.raises(AdmissionRefused, match="EMBERBOX_DISK_RESERVE_MB"):
        await pause(setting)
    assert sandbox.state is State.RUNNING
    assert "pause machine" not in setting.world.done
    await setting.sandboxes.end_all("test")


async def test_a_guest_that_hangs_is_paused_all_the_same(setting: Setting) -> None:
    sandbox = await setting.sandboxes.create(request())
    setting.world.fails_at, setting.world.failure = "sync", GuestUnreachable("silent")
    await pause(setting)
    assert any("silent" in line for line in sandbox.story())


async def test_a_guest_that_hangs_is_not_paused_when_it_is_to_be_healthy(
    setting: Setting,
) -> None:
    sandbox = await setting.sandboxes.create(request())
    setting.world.fails_at, setting.world.failure = "health", GuestUnreachable("silent")
    with pytest.raises(GuestUnhealthy, match="silent"):
        await pause(setting, require_healthy=True)
    assert sandbox.state is State.RUNNING
    assert "sync" not in setting.world.done
    await pause(setting, require_healthy=True)


async def test_two_pauses_are_one_and_a_later_one_gets_its_result(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    first, second = await asyncio.gather(pause(setting), pause(setting))
    assert first == second == await pause(setting)
    assert setting.world.done.count("save") == 1
    with pytest.raises(SandboxMissing):
        await pause(setting, "e-9")


async def test_a_pause_of_another_execution_is_refused(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    with pytest.raises(RunConflict):
        await pause(setting, "e-9")
    await setting.sandboxes.end_all("test")


async def test_a_kill_while_pausing_wins(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("save")
    pausing = asyncio.ensure_future(pause(setting))
    await until_pausing(setting)
    killing = asyncio.ensure_future(setting.sandboxes.delete("iabc", "asked"))
    await asyncio.sleep(0)
    go.set()
    await killing
    with pytest.raises(SandboxMissing):
        await pausing
    assert (setting.left(), files(setting)) == ([], [])
    assert setting.outcomes() == [("killed", "asked")]


async def test_a_resume_while_pausing_waits_and_of_two_the_second_is_refused(
    setting: Setting,
) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("save")
    pausing = asyncio.ensure_future(pause(setting))
    await until_pausing(setting)
    second = asyncio.ensure_future(setting.sandboxes.create(resuming("e-2")))
    third = asyncio.ensure_future(setting.sandboxes.create(resuming("e-3")))
    with pytest.raises(RunConflict):
        await setting.sandboxes.create(
            request(identity=dataclasses.replace(IDENTITY, execution_id="e-4"))
        )
    go.set()
    await pausing
    results = await asyncio.gather(second, third, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["RunConflict", "Sandbox"]
    await setting.sandboxes.end_all("test")


async def test_the_same_resume_twice_is_one(setting: Setting) -> None:
    await paused(setting)
    first, second = await asyncio.gather(
        setting.sandboxes.create(resuming()), setting.sandboxes.create(resuming())
    )
    assert first is second
    await setting.sandboxes.end_all("test")


async def test_a_kill_while_resuming_leaves_nothing(setting: Setting) -> None:
    await paused(setting)
    go = setting.world.hold("machine")
    starting = asyncio.ensure_future(setting.sandboxes.create(resuming()))
    await asyncio.sleep(0.01)
    killing = asyncio.ensure_future(setting.sandboxes.delete("iabc", "asked"))
    await asyncio.sleep(0)
    go.set()
    sandbox = setting.sandboxes.get("iabc")
    await killing
    assert sandbox.record.ended == ("killed", "asked")
    with pytest.raises(MachineError, match="killed while it was starting"):
        await starting
    assert (setting.left(), files(setting)) == ([], [])


async def test_what_is_paused_can_be_killed_once_and_not_be_updated(setting: Setting) -> None:
    await paused(setting)
    with pytest.raises(RunConflict, match="is paused"):
        await setting.sandboxes.create(request())
    with pytest.raises(SandboxMissing):
        setting.sandboxes.set_deadline("iabc", None, 1.0)
    with pytest.raises(SandboxMissing):
        await setting.sandboxes.set_egress("iabc", None, OPEN)
    await setting.sandboxes.delete("iabc", "asked")
    assert files(setting) == []
    with pytest.raises(SandboxMissing):
        await setting.sandboxes.delete("iabc", "asked")
    with pytest.raises(SandboxMissing, match="not paused"):
        await setting.sandboxes.create(resuming())


@pytest.mark.parametrize("step", ["slot", "machine"])
async def test_a_resume_that_fails_before_it_ran_is_paused_as_before(
    setting: Setting, step: str
) -> None:
    before = await paused(setting)
    setting.world.fails_at, setting.world.failure = step, MachineError("broken")
    with pytest.raises(MachineError, match="broken"):
        await setting.sandboxes.create(resuming())
    assert setting.left() == []
    assert await setting.sandboxes.paused() == [before]
    assert [outcome for outcome, _ in setting.outcomes()] == ["paused", "paused"]
    await setting.sandboxes.create(resuming("e-3"))
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize("step", ["init", "route"])
async def test_a_resume_that_fails_after_it_ran_keeps_its_files_and_says_so(
    setting: Setting, step: str
) -> None:
    await paused(setting)
    setting.world.fails_at, setting.world.failure = step, MachineError("broken")
    with pytest.raises(MachineError, match="broken"):
        await setting.sandboxes.create(resuming())
    [kept] = await setting.sandboxes.paused()
    assert (kept.memory, kept.lost, kept.memory_bytes) == (False, MEMORY_LOST, 0)
    sandbox = await setting.sandboxes.create(resuming("e-3"))
    assert MEMORY_LOST in sandbox.record.notice
    assert "boot" in setting.world.done
    await setting.sandboxes.end_all("test")


async def test_memory_of_another_vmm_is_not_loaded_and_the_caller_is_told(
    setting: Setting,
) -> None:
    await paused(setting)
    setting.world.made_with = "a newer vmm"
    sandbox = await setting.sandboxes.create(resuming())
    assert "boot" in setting.world.done
    assert "another VMM" in sandbox.record.notice
    assert "vmm" in sandbox.record.notice
    await setting.sandboxes.end_all("test")


async def test_damaged_memory_is_not_used_and_the_caller_is_told(setting: Setting) -> None:
    await paused(setting)
    setting.world.fails_at, setting.world.failure = "machine", SnapshotUnusable("damaged")
    sandbox = await setting.sandboxes.create(resuming())
    assert "damaged" in sandbox.record.notice
    assert sandbox.record.booted
    await setting.sandboxes.end_all("test")


async def test_without_its_build_it_boots_on_another_with_the_same_root(
    setting: Setting,
) -> None:
    await paused(setting)
    build = setting.host.builds.get("t", "b-1")
    assert build
    setting.host.builds.remove(build)
    template(setting.host.builds, "b-3", root="root-3")
    with pytest.raises(MachineError, match="root image root-1 is not on this host"):
        await setting.sandboxes.create(resuming())
    template(setting.host.builds, "b-2")
    sandbox = await setting.sandboxes.create(resuming())
    assert sandbox.record.build_id == "b-2"
    assert "images" in sandbox.record.notice
    await setting.sandboxes.end_all("test")


async def test_a_deadline_pauses_what_wants_it(setting: Setting) -> None:
    await setting.sandboxes.create(request(seconds=0.05, auto_pause=True))
    await ended(setting)
    assert setting.outcomes() == [("paused", "its deadline passed")]
    assert files(setting) == ["iabc"]


async def test_builds_of_running_and_paused_sandboxes_are_in_use(setting: Setting) -> None:
    assert setting.sandboxes.builds_in_use() == set()
    await setting.sandboxes.create(request())
    assert setting.sandboxes.builds_in_use() == {"b-1"}
    await pause(setting)
    assert setting.sandboxes.builds_in_use() == {"b-1"}
    await setting.sandboxes.delete("iabc", "asked")
    assert setting.sandboxes.builds_in_use() == set()


async def test_shutting_down_ends_what_runs_and_lets_a_pause_finish(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("save")
    pausing = asyncio.ensure_future(pause(setting))
    await until_pausing(setting)
    ending = asyncio.ensure_future(setting.sandboxes.end_all("shut down"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(pausing, ending)
    assert setting.outcomes() == [("paused", "asked")]
    assert files(setting) == ["iabc"]


async def test_a_caller_that_leaves_does_not_break_a_pause_off(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("save")
    pausing = asyncio.ensure_future(pause(setting))
    await until_pausing(setting)
    pausing.cancel()
    go.set()
    await ended(setting)
    assert setting.outcomes() == [("paused", "asked")]


# After a restart


async def test_what_was_adopted_can_be_paused_and_joined(
    setting: Setting, live: ProcessIdentity
) -> None:
    (setting.host.directories.create(record(process=live)) / SCRATCH_FILE).write_bytes(b"disk")
    await setting.sandboxes.adopt_all()
    sandbox = await asyncio.wait_for(setting.sandboxes.create(request()), 5)
    assert sandbox.state is State.RUNNING
    snapshot = await asyncio.wait_for(pause(setting), 5)
    assert snapshot.execution_id == "e-1"


async def test_a_machine_that_stood_still_to_be_saved_runs_on(
    setting: Setting, live: ProcessIdentity
) -> None:
    setting.host.directories.create(record(process=live))
    draft = setting.host.snapshots.begin("iabc")
    (draft.directory / "half").write_text("x")
    await setting.sandboxes.adopt_all()
    assert setting.sandboxes.get("iabc").state is State.RUNNING
    assert "resume machine" in setting.world.done
    assert files(setting) == []
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize("lives", [True, False])
async def test_what_was_committed_never_runs_again_and_is_paused(
    setting: Setting, live: ProcessIdentity, *, lives: bool
) -> None:
    await paused(setting)
    setting.outbox.acknowledge(1)
    setting.world.done.clear()
    setting.host.directories.create(record(process=live if lives else None))
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert "resume machine" not in setting.world.done
    assert ("stop" in setting.world.done) is lives
    assert [outcome for outcome, _ in setting.outcomes()] == ["paused"]
    assert (setting.left(), files(setting)) == ([], ["iabc"])


async def test_a_kill_that_was_written_down_while_pausing_wins_after_a_crash(
    setting: Setting,
) -> None:
    await paused(setting)
    setting.outbox.acknowledge(1)
    setting.host.directories.create(record(ended=("killed", "asked")))
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert setting.outcomes() == [("killed", "asked")]
    assert (setting.left(), files(setting)) == ([], [])


@pytest.mark.parametrize("lives", [True, False])
async def test_a_resume_that_had_not_begun_to_run_is_paused_as_before(
    setting: Setting, live: ProcessIdentity, *, lives: bool
) -> None:
    before = await paused(setting)
    again = record(execution_id="e-2", resumed=True, running=False, process=live if lives else None)
    setting.host.directories.create(again)
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert await setting.sandboxes.paused() == [before]
    assert [outcome for outcome, _ in setting.outcomes()] == ["paused", "paused"]
    assert setting.left() == []


async def test_a_resume_that_had_begun_to_run_goes_on(
    setting: Setting, live: ProcessIdentity
) -> None:
    await paused(setting)
    setting.host.snapshots.consume("iabc", "e-2")
    again = record(
        execution_id="e-2", resumed=True, running=False, process=live, envd_token="token"
    )
    setting.host.directories.create(again)
    assert await setting.sandboxes.adopt_all() == {3}
    sandbox = setting.sandboxes.get("iabc")
    await sandbox.settled()
    assert sandbox.state is State.RUNNING
    assert "resume machine" in setting.world.done
    assert setting.world.presented[-1][1].execution_id == "e-2"
    await until(lambda: not files(setting))
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize("with_record", [True, False])
async def test_a_resume_whose_machine_died_with_its_orchestrator_keeps_its_files(
    setting: Setting, *, with_record: bool
) -> None:
    await paused(setting)
    setting.host.snapshots.consume("iabc", "e-2")
    if with_record:
        again = record(execution_id="e-2", resumed=True, running=False)
        setting.host.directories.create(again)
    await setting.sandboxes.adopt_all()
    await ended(setting)
    [kept] = await setting.sandboxes.paused()
    assert (kept.memory, kept.lost) == (False, MEMORY_LOST)
    assert (setting.left(), files(setting)) == ([], ["iabc"])


async def test_what_a_running_resume_did_not_drop_is_dropped(
    setting: Setting, live: ProcessIdentity
) -> None:
    await paused(setting)
    setting.host.snapshots.consume("iabc", "e-2")
    setting.host.directories.create(record(execution_id="e-2", resumed=True, process=live))
    await setting.sandboxes.adopt_all()
    assert setting.sandboxes.get("iabc").state is State.RUNNING
    assert files(setting) == []
    await setting.sandboxes.end_all("test")


async def test_leaving_while_pausing_lets_the_machine_run(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    setting.world.hold("save")
    pausing = asyncio.ensure_future(pause(setting))
    await until_pausing(setting)
    await until(lambda: "pause machine" in setting.world.done)
    await setting.sandboxes.detach_all()
    pausing.cancel()
    assert setting.world.machine
    assert setting.world.machine.running
    assert files(setting) == []
