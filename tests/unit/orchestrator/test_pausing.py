"""Pausing on a host made of stand-ins: whatever fails, no sandbox is lost."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.errors import (
    AdmissionRefused,
    GuestUnhealthy,
    GuestUnreachable,
    RunConflict,
    SandboxMissing,
)
from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.sandboxes.lifecycle import State
from tests.unit.orchestrator.pausing import files, pause, paused, resuming, until_pausing
from tests.unit.orchestrator.sandbox_world import ended, request

if TYPE_CHECKING:
    from tests.unit.orchestrator.sandbox_world import Setting


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
    await ended(setting)
    assert await pause(setting) == first
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


async def test_a_pause_is_answered_before_all_is_given_back(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("release")
    snapshot = await pause(setting)
    assert setting.world.taken == ["slot"]  # no route any more
    assert await setting.sandboxes.paused() == [snapshot]
    assert await pause(setting) == snapshot
    resumed = asyncio.ensure_future(setting.sandboxes.create(resuming()))
    await asyncio.sleep(0.01)
    assert not resumed.done()
    go.set()
    assert (await resumed).state is State.RUNNING
    await setting.sandboxes.end_all("test")


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
