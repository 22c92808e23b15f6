"""The warm pool with a host of stand-ins: clones come before they are asked for, and become
sandboxes, or go again without a trace."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.orchestrator.errors import AdmissionRefused, GuestUnreachable, MachineError
from emberbox.orchestrator.processes import ProcessIdentity
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.lifecycle import State
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, SandboxRecord
from emberbox.orchestrator.sandboxes.share import Share
from tests.unit.orchestrator.sandbox_world import (
    IDENTITY,
    Setting,
    record,
    request,
    template,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(20)

REHEARSED = ["closed slot", "machine", "init", "run", "init"]


@pytest.fixture
async def warm(setting: Setting) -> AsyncIterator[Setting]:
    """A host with one warm clone. At the end nothing is left of any."""
    setting.pool.start(lambda: 10)
    await until(lambda: setting.pool.counts.ready == 1)
    yield setting
    await setting.sandboxes.end_all("test")
    await setting.pool.close()
    assert setting.left() == []
    assert setting.pool.records() == []


def pool_directories(setting: Setting) -> list[Path]:
    return list(setting.host.directories.root.with_name("pool").iterdir())


def refills_no_more(setting: Setting) -> None:
    """The next clone waits for its machine until the test's end, which breaks that off."""
    setting.world.hold("machine")


async def test_a_clone_is_made_ahead_rehearsed_and_has_no_route(warm: Setting) -> None:
    assert warm.world.done == REHEARSED
    assert warm.world.taken == ["slot"]
    assert list(warm.sandboxes) == []
    [directory] = pool_directories(warm)
    written = SandboxRecord.from_json((directory / RECORD_FILE).read_bytes())
    assert written.running
    assert written.envd_token is None
    # It has rehearsed with identities that differ, and without a token.
    (_, first), (_, second) = warm.world.presented
    assert first.sandbox_id != second.sandbox_id
    assert first.access_token == second.access_token == ""
    assert warm.sandboxes.builds_in_use() == {"b-1"}


async def test_a_create_makes_it_a_sandbox_identity_first_then_egress_then_route(
    warm: Setting,
) -> None:
    [directory] = pool_directories(warm)
    machine = warm.world.machine
    warm.world.done.clear()
    refills_no_more(warm)
    sandbox = await warm.sandboxes.create(request())
    assert warm.world.done[:3] == ["init", "open slot", "route"]
    assert "machine" not in warm.world.done
    assert warm.world.presented[-1] == ("", IDENTITY)
    assert machine is not None
    assert machine.directory == warm.host.directories.path("iabc")
    assert directory not in pool_directories(warm)
    written = SandboxRecord.from_json((machine.directory / RECORD_FILE).read_bytes())
    assert (written.sandbox_id, written.execution_id, written.running) == ("iabc", "e-1", True)
    assert written.process == machine.identity
    assert [name for name, _ in sandbox.steps.taken] == ["claim", "init", "egress", "route"]
    assert any(f"made of the warm clone {directory.name}" in line for line in sandbox.story())
    assert any("ready after" in line and "'init':" in line for line in sandbox.story())


async def test_it_is_replaced_and_the_sandbox_ends_as_any_other(warm: Setting) -> None:
    await warm.sandboxes.create(request())
    await until(lambda: warm.pool.counts.ready == 1)
    await warm.sandboxes.delete("iabc", "asked")
    assert warm.outcomes() == [("killed", "asked")]
    assert warm.world.taken == ["slot"]
    assert list(warm.host.directories.root.iterdir()) == []


async def created_without_the_clone(warm: Setting) -> None:
    """A sandbox that runs, says why, and leaves nothing of the clone that it was to have."""
    sandbox = await warm.sandboxes.create(request())
    assert sandbox.state is State.RUNNING
    assert any("was of no use" in line for line in sandbox.story())
    await until(lambda: warm.pool.counts.ready == 1)
    assert sorted(warm.world.taken) == ["route", "slot", "slot"]


@pytest.mark.parametrize("failure", [GuestUnreachable("silent"), OSError(28, "disk full")])
@pytest.mark.parametrize("step", ["init", "open slot"])
async def test_a_clone_that_fails_is_given_up_for_a_fresh_one(
    warm: Setting, step: str, failure: Exception
) -> None:
    warm.world.fails_at, warm.world.failure = step, failure
    warm.world.done.clear()
    await created_without_the_clone(warm)
    assert "slot" in warm.world.done


async def test_a_clone_whose_directory_cannot_be_had_is_given_up(
    warm: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "disk full")

    [directory] = pool_directories(warm)
    monkeypatch.setattr("emberbox.orchestrator.sandboxes.records.RunDirectories.take_over", full)
    assert (await warm.sandboxes.create(request())).state is State.RUNNING
    await until(lambda: not directory.exists())


async def test_a_clone_that_stays_behind_the_others_is_given_up(
    warm: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_arguments: object) -> None:
        raise OSError(2, "no such group")

    monkeypatch.setattr(Share, "come_forward", gone)
    await created_without_the_clone(warm)


async def test_a_clone_that_somebody_waits_for_gives_way_no_more(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[str] = []
    for name in ("give_way", "come_forward"):
        monkeypatch.setattr(Share, name, lambda *_, name=name: weighed.append(name))
    going_on = setting.world.hold("init")
    setting.pool.start(lambda: 10)
    await until(lambda: weighed == ["give_way"])
    creating = asyncio.ensure_future(setting.sandboxes.create(request()))
    await until(lambda: weighed == ["give_way", "come_forward"])  # it is not warm yet
    refills_no_more(setting)
    going_on.set()
    await creating
    await setting.sandboxes.end_all("test")
    await setting.pool.close()
    assert setting.left() == []


async def test_a_create_waits_for_a_clone_that_is_under_way(setting: Setting) -> None:
    going_on = setting.world.hold("init")
    setting.pool.start(lambda: 10)
    await until(lambda: setting.pool.counts.making == 1 and "machine" in setting.world.done)
    creating = asyncio.ensure_future(setting.sandboxes.create(request()))
    await asyncio.sleep(0)
    going_on.set()
    sandbox = await creating
    assert any("made of the warm clone" in line for line in sandbox.story())
    await setting.sandboxes.end_all("test")
    await setting.pool.close()
    assert setting.left() == []


async def test_a_create_that_waited_for_a_clone_that_fails_gets_a_fresh_one(
    setting: Setting,
) -> None:
    going_on = setting.world.hold("init")
    setting.world.fails_at, setting.world.failure = "init", GuestUnreachable("silent")
    setting.pool.start(lambda: 10)
    await until(lambda: "machine" in setting.world.done)
    creating = asyncio.ensure_future(setting.sandboxes.create(request()))
    await asyncio.sleep(0)
    going_on.set()
    assert (await creating).state is State.RUNNING
    await setting.sandboxes.end_all("test")
    await setting.pool.close()
    assert setting.left() == []


async def test_a_clone_that_dies_is_replaced_and_nobodys_end_is_reported(warm: Setting) -> None:
    [before] = pool_directories(warm)
    assert warm.world.machine
    warm.world.machine.ended.set_result("the guest ended (guest-panic)")
    await until(lambda: warm.pool.counts.ready == 1 and before not in pool_directories(warm))
    assert warm.outcomes() == []


async def test_a_clone_that_cannot_be_made_leaves_nothing_and_creates_go_on(
    setting: Setting,
) -> None:
    setting.world.fails_at = "machine"
    setting.pool.start(lambda: 10)
    await until(lambda: "release" in setting.world.done)
    await until(lambda: not pool_directories(setting))
    assert (await setting.sandboxes.create(request())).state is State.RUNNING
    await setting.sandboxes.end_all("test")
    await setting.pool.close()
    assert setting.left() == []


@pytest.mark.parametrize(
    "other", [{"cold": True}, {"build": "checkpoint"}], ids=["from files", "another build"]
)
async def test_what_is_not_the_templates_clone_is_made_as_before(
    warm: Setting, other: dict[str, Any]
) -> None:
    [clone] = pool_directories(warm)
    wanted = request(cold=other.get("cold", False))
    if "build" in other:
        kept = dataclasses.replace(
            template(warm.host.builds, "b-2"), spec=template(warm.host.builds, "b-3").spec
        )
        warm.sandboxes._templates.offer_checkpoint(kept)
        wanted = dataclasses.replace(wanted, build_id="b-2")
    await warm.sandboxes.create(wanted)
    assert pool_directories(warm) == [clone]


async def test_a_kill_while_it_is_claimed_leaves_nothing(warm: Setting) -> None:
    going_on = warm.world.hold("init")
    creating = asyncio.ensure_future(warm.sandboxes.create(request()))
    await asyncio.sleep(0)
    killing = asyncio.ensure_future(warm.sandboxes.delete("iabc", "asked"))
    await asyncio.sleep(0)
    going_on.set()
    await killing
    with pytest.raises(MachineError, match="killed while it was starting"):
        await creating
    assert warm.outcomes() == [("killed", "asked")]


async def test_a_full_host_lets_clones_go_before_it_refuses(
    warm: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "memory_mb", lambda: (1000, 100))
    warm.sandboxes.limits = admission.Limits(10, 100.0, 90, 0)
    refills_no_more(warm)
    await warm.sandboxes.create(request())  # what it takes, its clone has taken already
    other = dataclasses.replace(IDENTITY, sandbox_id="iother")
    with pytest.raises(AdmissionRefused, match="free memory"):
        await warm.sandboxes.create(request(identity=other))


def test_clones_leave_twice_the_reserve() -> None:
    limits = admission.Limits(10, 2.0, 100, 0)

    def room(available: int, promised: int = 0, starting: int = 0) -> int:
        usage = admission.Usage(0, promised, 1000, available, 0, starting)
        return admission.clone_room(limits, usage, ram_mb=512)

    assert room(available=1000) == 3  # 2000 MiB may be promised
    assert room(available=200 + 64) == 1
    assert room(available=200 + 64, starting=1) == 0
    assert room(available=199) == -1
    assert room(available=1000, promised=1500) == 0
    assert room(available=1000, promised=2100) == -1


# After a restart of the orchestrator


def left_over(setting: Setting, live: ProcessIdentity | None, **changes: Any) -> Path:
    """What an earlier orchestrator left in the pool."""
    directory = setting.host.directories.root.with_name("pool") / "pool-old"
    directory.mkdir()
    kept = record(sandbox_id="pool-old", execution_id="", process=live)
    (directory / RECORD_FILE).write_bytes(dataclasses.replace(kept, **changes).to_json())
    return directory


async def test_a_warm_clone_is_adopted_and_given_away(
    setting: Setting, live: ProcessIdentity
) -> None:
    left_over(setting, live)
    assert await setting.sandboxes.adopt_all() == {3}
    assert list(setting.sandboxes) == []
    setting.pool.start(lambda: 10)
    await until(lambda: setting.pool.counts.wanted == 1)
    sandbox = await setting.sandboxes.create(request())
    assert any("made of the warm clone pool-old" in line for line in sandbox.story())
    await setting.sandboxes.end_all("test")
    await setting.pool.close()
    assert setting.left() == []


GONE = ProcessIdentity(1, 1, "an earlier boot")


@pytest.mark.parametrize(
    ("process", "changes"),
    [
        (None, {"running": False}),
        (GONE, {}),
        (GONE, {"running": False, "sandbox_id": "iabc", "execution_id": "e-1"}),
    ],
    ids=["not started", "dead", "being claimed"],
)
async def test_what_else_was_left_in_the_pool_is_ended(
    setting: Setting, process: ProcessIdentity | None, changes: dict[str, Any]
) -> None:
    left_over(setting, process, **changes)
    assert await setting.sandboxes.adopt_all() == set()
    assert setting.left() == []
    assert setting.outcomes() == []


async def test_a_clone_that_is_half_made_is_ended_with_its_vmm(
    setting: Setting, live: ProcessIdentity
) -> None:
    left_over(setting, live, running=False)
    await setting.sandboxes.adopt_all()
    assert "stop" in setting.world.done
    assert setting.left() == []


async def test_a_claim_that_was_cut_off_after_it_was_written_down_is_a_failed_start(
    setting: Setting, live: ProcessIdentity
) -> None:
    directory = setting.host.directories.create(
        record(sandbox_id="iabc", running=False, process=live)
    )
    await setting.sandboxes.adopt_all()
    await until(lambda: not directory.exists())
    assert setting.outcomes() == []
    assert setting.left() == []


async def test_two_creates_at_once_get_two_machines(warm: Setting) -> None:
    other = dataclasses.replace(IDENTITY, sandbox_id="iother", execution_id="e-2")
    both = await asyncio.gather(
        warm.sandboxes.create(request()), warm.sandboxes.create(request(identity=other))
    )
    warmth = [any("made of the warm" in line for line in s.story()) for s in both]
    assert warmth == [True, False]
