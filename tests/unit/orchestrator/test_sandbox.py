"""The shell around the lifecycle: what was taken is given back, whatever fails."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.orchestrator.errors import GuestUnreachable, MachineError, OrchestratorError
from emberbox.orchestrator.network.errors import SlotMissingError
from emberbox.orchestrator.outbox import Outbox
from emberbox.orchestrator.processes import ProcessIdentity
from emberbox.orchestrator.sandboxes.lifecycle import Outcome, State
from emberbox.orchestrator.sandboxes.records import RunDirectories
from tests.unit.orchestrator.sandbox_world import IDENTITY, ended, record, request

if TYPE_CHECKING:
    from tests.unit.orchestrator.sandbox_world import Setting


async def test_a_created_sandbox_runs_and_a_killed_one_is_gone(setting: Setting) -> None:
    sandbox = await setting.sandboxes.create(request())
    assert sandbox.state is State.RUNNING
    assert sandbox.record.envd_version == "0.6.13"
    assert any("cloned from the snapshot of build b-1" in line for line in sandbox.story())
    await setting.sandboxes.delete("iabc", "asked")
    assert setting.left() == []
    assert setting.outcomes() == [("killed", "asked")]
    assert list(setting.sandboxes) == []


@pytest.mark.parametrize("step", ["slot", "machine", "init", "route"])
@pytest.mark.parametrize("failure", [MachineError("broken"), OSError(errno.ENOSPC, "disk full")])
async def test_a_start_that_fails_at_any_step_leaves_nothing(
    setting: Setting, step: str, failure: Exception
) -> None:
    setting.world.fails_at, setting.world.failure = step, failure
    with pytest.raises(type(failure)):
        await setting.sandboxes.create(request())
    assert setting.left() == []
    assert setting.outcomes() == []
    assert list(setting.sandboxes) == []
    # The room is free again: the same id can be used at once.
    await setting.sandboxes.create(request())
    await setting.sandboxes.end_all("test")


async def test_a_full_disk_while_copying_reaches_the_caller(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("emberbox.orchestrator.sandboxes.holdings.copy_sparse", full)
    monkeypatch.setattr(RunDirectories, "save", full)
    with pytest.raises(OSError, match="No space left"):
        await asyncio.wait_for(setting.sandboxes.create(request()), 5)
    assert setting.left() == []


async def test_a_kill_while_starting_waits_for_the_start(setting: Setting) -> None:
    starting = asyncio.ensure_future(setting.sandboxes.create(request()))
    await asyncio.sleep(0)
    await setting.sandboxes.delete("iabc", "asked")
    with pytest.raises(MachineError, match="killed while it was starting"):
        await starting
    assert setting.left() == []
    assert setting.outcomes() == [("killed", "asked")]


async def test_the_same_create_twice_is_one_sandbox(setting: Setting) -> None:
    first, second = await asyncio.gather(
        setting.sandboxes.create(request()), setting.sandboxes.create(request())
    )
    assert first is second
    other = dataclasses.replace(IDENTITY, execution_id="e-2")
    with pytest.raises(OrchestratorError, match="another execution"):
        await setting.sandboxes.create(request(identity=other))
    await setting.sandboxes.end_all("test")


async def test_a_deadline_ends_it(setting: Setting) -> None:
    await setting.sandboxes.create(request(seconds=0.05))
    await ended(setting)
    assert setting.outcomes() == [("expired", "its deadline passed")]
    assert setting.left() == []


async def test_a_machine_that_dies_is_reclaimed_and_its_last_words_are_told(
    setting: Setting,
) -> None:
    await setting.sandboxes.create(request())
    assert setting.world.machine
    setting.world.machine.ended.set_result("the guest ended: its kernel panicked")
    await ended(setting)
    [(outcome, reason)] = setting.outcomes()
    assert outcome == "crashed"
    assert "kernel panicked" in reason
    assert "last words" in reason


async def test_a_full_disk_does_not_keep_a_sandbox_alive(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.sandboxes.create(request())

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(RunDirectories, "save", full)
    await asyncio.wait_for(setting.sandboxes.delete("iabc", "asked"), 5)
    assert setting.left() == []


async def test_an_outcome_that_cannot_be_kept_stays_in_the_run_directory(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.sandboxes.create(request())

    def broken(*_arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "add", broken)
        await asyncio.wait_for(setting.sandboxes.delete("iabc", "asked"), 5)
    assert setting.left() == ["iabc"]
    [record] = setting.host.directories.load_all()
    assert record.ended == ("killed", "asked")
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert setting.outcomes() == [("killed", "asked")]
    assert setting.left() == []


async def test_a_slot_is_not_given_back_before_its_machine_is_gone(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    setting.world.fails_at, setting.world.failure = "stop", OSError(errno.EMFILE, "no descriptor")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("emberbox.orchestrator.sandboxes.holdings._RETRY_SECONDS", 0.01)
        await setting.sandboxes.delete("iabc", "asked")
    assert setting.world.done[-3:] == ["stop", "stop", "release"]


@pytest.mark.parametrize("sandbox_id", ["", "..", "../templates", "a,b", "A", "a" * 64])
async def test_what_is_no_id_is_refused_and_touches_nothing(
    setting: Setting, sandbox_id: str
) -> None:
    identity = dataclasses.replace(IDENTITY, sandbox_id=sandbox_id)
    with pytest.raises(OrchestratorError, match="sandbox_id"):
        await setting.sandboxes.create(request(identity=identity))
    assert setting.world.done == []
    assert setting.host.directories.root.is_dir()


# After a restart


async def test_a_vm_that_lives_runs_on(setting: Setting, live: ProcessIdentity) -> None:
    setting.host.directories.create(record(process=live))
    assert await setting.sandboxes.adopt_all() == {3}
    sandbox = setting.sandboxes.get("iabc")
    assert sandbox.state is State.RUNNING
    assert "route" in setting.world.taken
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize(
    ("changes", "outcomes"),
    [
        ({}, [("crashed", "its VM had ended while no orchestrator watched it")]),
        ({"ended": ("killed", "asked")}, [("killed", "asked")]),
        ({"running": False}, []),
        ({"running": False, "ended": ("killed", "asked")}, [("killed", "asked")]),
    ],
)
@pytest.mark.parametrize("process", [None, ProcessIdentity(1, 2, "an earlier boot")])
async def test_what_died_meanwhile_is_reported_and_reclaimed(
    setting: Setting,
    changes: dict[str, Any],
    outcomes: list[tuple[str, str]],
    process: ProcessIdentity | None,
) -> None:
    setting.host.directories.create(record(process=process, **changes))
    assert await setting.sandboxes.adopt_all() == set()
    await ended(setting)
    assert setting.outcomes() == outcomes
    assert setting.left() == []


@pytest.mark.parametrize(
    ("step", "failure"),
    [
        ("adopt slot", SlotMissingError(3, "its link")),
        ("adopt machine", GuestUnreachable("silent")),
        ("adopt machine", OSError(errno.EMFILE, "no descriptor")),
    ],
)
async def test_a_vm_that_cannot_be_adopted_is_ended_and_blocks_nobody(
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    live: ProcessIdentity,
    step: str,
    failure: Exception,
) -> None:
    killed: list[ProcessIdentity] = []

    async def kill(identity: ProcessIdentity) -> None:
        killed.append(identity)

    monkeypatch.setattr("emberbox.orchestrator.sandboxes.holdings.kill_and_wait", kill)
    setting.host.directories.create(record(process=live))
    setting.world.fails_at, setting.world.failure = step, failure
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert killed == [live]
    assert [outcome for outcome, _ in setting.outcomes()] == [Outcome.CRASHED.value]
    assert setting.left() == []


async def test_a_vm_that_is_left_is_detached_not_stopped(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    await setting.sandboxes.detach_all()
    assert "detach" in setting.world.done
    assert "stop" not in setting.world.done
    assert setting.left() != []
