"""Copies of running sandboxes on a host made of stand-ins."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.orchestrator.errors import (
    BadRequest,
    BuildInUse,
    RunConflict,
    SandboxMissing,
    SnapshotUnusable,
    TemplateMissing,
)
from emberbox.orchestrator.network.policy import OPEN
from emberbox.orchestrator.sandboxes.copying import Wanted
from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested, State
from tests.unit.orchestrator.sandbox_world import IDENTITY, ended, request

if TYPE_CHECKING:
    from emberbox.orchestrator.sandboxes.beginning import CreateRequest
    from emberbox.orchestrator.templates.checkpoints import Kept
    from tests.unit.orchestrator.sandbox_world import Setting

WANTED = Wanted("copy", "c-1")
CHILD = dataclasses.replace(
    IDENTITY, sandbox_id="ichild", template_id="copy", execution_id="e-9", access_token="other"
)


def of_checkpoint(**more: Any) -> CreateRequest:
    return dataclasses.replace(request(identity=CHILD, **more), build_id="c-1")


async def checkpoint(setting: Setting, wanted: Wanted = WANTED) -> Kept:
    return await setting.sandboxes.checkpoint("iabc", "e-1", wanted)


async def test_a_child_begins_with_the_memory_and_is_told_a_token_of_its_own(
    setting: Setting,
) -> None:
    source = await setting.sandboxes.create(request())
    kept = await checkpoint(setting)
    assert source.state is State.RUNNING
    assert setting.world.machine
    assert setting.world.machine.running
    assert kept.template.manifest.memory
    assert setting.world.pinned == {("root-1", "template-c-1")}
    assert not (kept.template.directory / "saved").exists()

    child = await setting.sandboxes.create(of_checkpoint())
    assert not child.record.booted
    present, identity = setting.world.presented[-1]
    assert (present, identity.access_token) == ("token", "other")
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize("layers", [True, False])
async def test_what_its_memory_lies_over_stays(setting: Setting, *, layers: bool) -> None:
    setting.world.layers = layers
    await setting.sandboxes.create(request())
    kept = await checkpoint(setting)
    below = ("t", "b-1") if layers else None
    assert kept.template.manifest.base == below
    found = setting.host.builds.get("copy", "c-1")
    assert found is not None
    assert found.manifest == kept.template.manifest
    root = setting.host.builds.get("t", "b-1")
    assert root is not None
    assert found.snapshot.base == (root.snapshot.directory if layers else None)
    await setting.sandboxes.delete("iabc", "asked")
    assert setting.sandboxes.builds_in_use() == ({"b-1"} if layers else set())

    # A checkpoint of its child lies over the same, and never over a checkpoint that is whole.
    await setting.sandboxes.create(of_checkpoint())
    setting.world.layers = True
    second = await setting.sandboxes.checkpoint("ichild", "e-9", Wanted("again", "c-2"))
    assert second.template.manifest.base == below
    await setting.sandboxes.delete("ichild", "asked")
    await setting.sandboxes.remove_checkpoint("copy", "c-1")
    assert setting.sandboxes.builds_in_use() == ({"b-1"} if layers else set())
    await setting.sandboxes.remove_checkpoint("again", "c-2")
    assert setting.sandboxes.builds_in_use() == set()


async def test_what_is_copied_stays_until_the_copy_is_kept(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("materialise")
    copying = asyncio.ensure_future(checkpoint(setting))
    while "save" not in setting.world.done:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await setting.sandboxes.delete("iabc", "asked")
    assert setting.sandboxes.builds_in_use() == {"b-1"}
    go.set()
    await copying


async def test_the_same_checkpoint_twice_is_one(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    first, second = await asyncio.gather(checkpoint(setting), checkpoint(setting))
    assert first == second == await checkpoint(setting)
    assert setting.world.done.count("save") == 1
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize("step", ["pause machine", "save", "materialise"])
async def test_a_checkpoint_that_fails_leaves_nothing_and_it_runs_on(
    setting: Setting, step: str
) -> None:
    sandbox = await setting.sandboxes.create(request())
    setting.world.fails_at, setting.world.failure = step, OSError(errno.ENOSPC, "disk full")
    with pytest.raises(OSError, match="disk full"):
        await checkpoint(setting)
    assert sandbox.state is State.RUNNING
    assert setting.world.machine
    assert setting.world.machine.running
    assert [build.build_id for build in setting.host.builds.all()] == ["b-1"]
    await checkpoint(setting)
    await setting.sandboxes.end_all("test")


async def test_files_alone_are_booted(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    kept = await checkpoint(setting, dataclasses.replace(WANTED, files_only=True))
    assert kept.memory_bytes == 0
    child = await setting.sandboxes.create(of_checkpoint())
    assert child.record.booted
    assert child.record.notice == ""
    assert setting.world.presented[-1][0] == ""
    await setting.sandboxes.end_all("test")


async def test_memory_of_another_vmm_is_booted_and_the_caller_is_told(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    await checkpoint(setting)
    setting.world.made_with = "a newer vmm"
    child = await setting.sandboxes.create(of_checkpoint())
    assert child.record.booted
    assert "another VMM" in child.record.notice
    await setting.sandboxes.end_all("test")


async def test_a_build_in_use_stays_until_nothing_stands_on_it(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    await checkpoint(setting)
    await setting.sandboxes.create(of_checkpoint())
    with pytest.raises(BuildInUse):
        await setting.sandboxes.remove_checkpoint("copy", "c-1")
    await setting.sandboxes.pause("ichild", "e-9", PauseRequested("asked"))
    with pytest.raises(BuildInUse):
        await setting.sandboxes.remove_checkpoint("copy", "c-1")
    await setting.sandboxes.delete("ichild", "asked")
    await setting.sandboxes.remove_checkpoint("copy", "c-1")
    assert setting.world.pinned == set()
    with pytest.raises(TemplateMissing):
        await setting.sandboxes.remove_checkpoint("copy", "c-1")
    with pytest.raises(TemplateMissing):
        await setting.sandboxes.create(of_checkpoint())
    # The host's own are not removed this way.
    with pytest.raises(TemplateMissing):
        await setting.sandboxes.remove_checkpoint("t", "b-1")
    await setting.sandboxes.end_all("test")


async def test_a_kill_while_copying_waits_and_a_pause_follows(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("save")
    copying = asyncio.ensure_future(checkpoint(setting))
    while setting.sandboxes.get("iabc").state is not State.COPYING:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    setting.sandboxes.set_deadline("iabc", "e-1", request().end_time)
    await setting.sandboxes.set_egress("iabc", "e-1", OPEN)
    pausing = asyncio.ensure_future(
        setting.sandboxes.pause("iabc", "e-1", PauseRequested("asked", files_only=True))
    )
    await asyncio.sleep(0)
    go.set()
    await copying
    assert not (await pausing).snapshot.memory
    await ended(setting)
    assert setting.outcomes() == [("paused", "asked")]


async def test_a_kill_while_copying_ends_it_when_the_copy_is_made(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    go = setting.world.hold("save")
    copying = asyncio.ensure_future(checkpoint(setting))
    while setting.sandboxes.get("iabc").state is not State.COPYING:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    killing = asyncio.ensure_future(setting.sandboxes.delete("iabc", "asked"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(copying, killing)
    await ended(setting)
    assert setting.left() == []
    assert setting.outcomes() == [("killed", "asked")]


@pytest.mark.parametrize("wanted", [Wanted("../x", "c"), Wanted("x", "a/b"), Wanted("t", "c")])
async def test_what_cannot_be_a_build_is_refused(setting: Setting, wanted: Wanted) -> None:
    await setting.sandboxes.create(request())
    with pytest.raises(BadRequest):
        await checkpoint(setting, wanted)
    await setting.sandboxes.end_all("test")


async def test_only_what_runs_can_be_copied(setting: Setting) -> None:
    with pytest.raises(SandboxMissing):
        await checkpoint(setting)
    await setting.sandboxes.create(request())
    with pytest.raises(RunConflict):
        await setting.sandboxes.checkpoint("iabc", "e-2", WANTED)
    await setting.sandboxes.end_all("test")


async def test_damaged_memory_is_told_to_who_makes_the_checkpoint(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    setting.world.fails_at, setting.world.failure = "materialise", SnapshotUnusable("damaged")
    with pytest.raises(SnapshotUnusable):
        await checkpoint(setting)
    await setting.sandboxes.end_all("test")
