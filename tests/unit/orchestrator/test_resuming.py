"""Resuming on a host made of stand-ins: it goes on, or is paused as before."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.orchestrator.errors import (
    AdmissionRefused,
    MachineError,
    RunConflict,
    SnapshotUnusable,
)
from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested, State
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE
from emberbox.orchestrator.snapshots.local import MEMORY_LOST
from tests.unit.orchestrator.pausing import files, pause, paused, resuming, until, until_pausing
from tests.unit.orchestrator.sandbox_world import IDENTITY, request, template

if TYPE_CHECKING:
    from tests.unit.orchestrator.sandbox_world import Setting


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


async def test_a_full_host_waits_for_what_is_ending(setting: Setting) -> None:
    for number in range(10):
        identity = dataclasses.replace(IDENTITY, sandbox_id=f"i{number}", execution_id=f"e{number}")
        await setting.sandboxes.create(request(identity=identity))
    with pytest.raises(AdmissionRefused, match="it runs 10 sandboxes"):
        await setting.sandboxes.create(request())
    go = setting.world.hold("release")
    await setting.sandboxes.pause("i1", "e1", PauseRequested("asked"))
    another = asyncio.ensure_future(setting.sandboxes.create(request()))
    await asyncio.sleep(0.01)
    assert not another.done()
    go.set()
    assert (await another).state is State.RUNNING
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize("step", ["machine", "resume"])
async def test_a_resume_that_comes_while_it_is_killed_ends_too(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before it has taken the snapshot, and when its machine runs already."""
    await paused(setting)
    go = setting.world.hold(step)
    starts: list[asyncio.Future[Any]] = []
    loop, discard = asyncio.get_running_loop(), setting.host.snapshots.discard

    async def start() -> None:
        starts.append(asyncio.ensure_future(setting.sandboxes.create(resuming())))
        await setting.world.waits[step].wait()

    def resume_first(sandbox_id: str) -> bool:
        monkeypatch.setattr(setting.host.snapshots, "discard", discard)
        asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        return discard(sandbox_id)

    monkeypatch.setattr(setting.host.snapshots, "discard", resume_first)
    killing = asyncio.ensure_future(setting.sandboxes.delete("iabc", "asked"))
    await until(lambda: any(s.state is State.ENDING for s in setting.sandboxes))
    go.set()
    await killing
    with pytest.raises((MachineError, OSError)):
        await starts[0]
    assert (setting.left(), files(setting)) == ([], [])
    assert list(setting.sandboxes) == []


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


@pytest.mark.parametrize("step", ["resume", "route"])
async def test_a_resume_that_fails_after_it_ran_is_saved_again(setting: Setting, step: str) -> None:
    await paused(setting)
    setting.world.fails_at, setting.world.failure = step, MachineError("broken")
    with pytest.raises(MachineError, match="broken"):
        await setting.sandboxes.create(resuming())
    assert (setting.left(), files(setting)) == ([], ["iabc"])
    [kept] = await setting.sandboxes.paused()
    assert (kept.memory, kept.execution_id) == (True, "e-2")
    sandbox = await setting.sandboxes.create(resuming("e-3"))
    assert sandbox.record.notice == ""
    assert "boot" not in setting.world.done
    await setting.sandboxes.end_all("test")


async def test_when_it_cannot_be_saved_again_its_files_are_kept_and_it_says_so(
    setting: Setting,
) -> None:
    await paused(setting)
    setting.world.fails_at = "resume"
    setting.world.then_fails_at = "save"
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
    identity = dataclasses.replace(IDENTITY, env_vars={"A": "b"})
    await setting.sandboxes.create(request(identity=identity))
    await pause(setting)
    setting.world.fails_at, setting.world.failure = "machine", SnapshotUnusable("damaged")
    sandbox = await setting.sandboxes.create(resuming())
    assert "damaged" in sandbox.record.notice
    assert sandbox.record.booted
    assert setting.world.presented[-1][1].env_vars == {"A": "b"}
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
