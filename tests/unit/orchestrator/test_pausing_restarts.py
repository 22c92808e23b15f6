"""Orchestrators that end while they pause or resume, and those that come after them."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.sandboxes.lifecycle import State
from emberbox.orchestrator.sandboxes.records import SCRATCH_FILE
from emberbox.orchestrator.snapshots.local import MEMORY_LOST
from tests.unit.orchestrator.pausing import files, pause, paused, resuming, until, until_pausing
from tests.unit.orchestrator.sandbox_world import ended, record, request

if TYPE_CHECKING:
    from emberbox.orchestrator.processes import ProcessIdentity
    from tests.unit.orchestrator.sandbox_world import Setting


async def test_a_snapshot_that_cannot_be_removed_is_for_the_next_start(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await paused(setting)
    sandbox = await setting.sandboxes.create(resuming())

    def broken(_sandbox_id: str) -> bool:
        raise OSError(errno.EIO, "broken disk")

    with monkeypatch.context() as patched:
        patched.setattr(setting.host.snapshots, "discard", broken)
        await setting.sandboxes.delete("iabc", "asked")
    assert any("broken disk" in line for line in sandbox.story())
    assert setting.left() == ["iabc"]
    assert setting.outcomes()[-1] == ("killed", "asked")
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert (setting.left(), files(setting)) == ([], [])


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
    (draft.memory / "half").write_text("x")
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
