"""Events of the hosts, and what their lists say."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.configuring import CLUSTER_METADATA
from emberbox.api_server.errors import NodeError
from emberbox.api_server.records.lifecycle import PauseAsked

from .harness import World, eventually, paused, running, settings_for
from .standin import MOMENT, template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from .standin import Standin


@pytest.fixture
def patient(world: World) -> World:
    """A world whose reconciler waits for nothing."""
    for comparison in (world.services.reconciler._comparison(world.host.node_id),):
        comparison.lost_grace = comparison.orphan_grace = timedelta(0)
        comparison.create_timeout = timedelta(0)
    return world


async def check(world: World) -> None:
    (node,) = world.services.nodes.all()
    await world.services.reconciler.check(node)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (pb.OUTCOME_EXPIRED, "expired"),
        (pb.OUTCOME_CRASHED, "crashed"),
        (pb.OUTCOME_KILLED, "killed"),
    ],
)
async def test_an_outcome_is_recorded_and_acknowledged(
    world: World, outcome: pb.Outcome, state: str
) -> None:
    sandbox_id = await world.created()
    (node,) = world.services.nodes.all()
    following = asyncio.create_task(world.services.reconciler.follow_events(node))
    number = await world.host.report(sandbox_id, outcome, "because")
    row = await world.becomes(sandbox_id, state)
    assert row.end_reason == "because"
    assert row.ended_at is not None
    await eventually(lambda: _acknowledged(world, number))
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    assert (await world.http.get(f"/sandboxes/{sandbox_id}")).status_code == 404
    assert await world.rows() == []


async def test_an_outcome_that_comes_twice_is_applied_once(world: World) -> None:
    sandbox_id = await world.created()
    row = await world.becomes(sandbox_id, "running")
    reconciler = world.services.reconciler
    event = pb.SandboxEvent(
        number=1,
        sandbox_id=sandbox_id,
        execution_id=row.execution_id,
        outcome=pb.OUTCOME_CRASHED,
        reason="first",
    )
    await reconciler._apply(event)
    ended = (await world.row(sandbox_id)).ended_at
    event.reason = "second"
    event.outcome = pb.OUTCOME_EXPIRED
    await reconciler._apply(event)
    row = await world.row(sandbox_id)
    assert (row.state, row.end_reason, row.ended_at) == ("crashed", "first", ended)


async def test_an_outcome_of_another_run_changes_nothing(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    await world.services.reconciler._apply(
        pb.SandboxEvent(sandbox_id=sandbox_id, execution_id="earlier", outcome=pb.OUTCOME_CRASHED)
    )
    assert (await world.row(sandbox_id)).state == "running"


async def test_outcomes_of_the_time_before_are_read_after_a_restart(
    tmp_path: Path, host: Standin
) -> None:
    settings = settings_for(tmp_path, host)
    async with running(settings, host) as world:
        sandbox_id = await world.created()
        await world.becomes(sandbox_id, "running")
    await host.report(sandbox_id, pb.OUTCOME_EXPIRED)
    async with running(settings, host) as world:
        world.services.watcher.start()
        await world.becomes(sandbox_id, "expired")


async def test_a_reservation_that_its_host_reports_live_is_promoted(patient: World) -> None:
    patient.host.hold_create = asyncio.Event()
    creating = asyncio.create_task(patient.create())
    await patient.host.create_began.wait()
    await check(patient)
    (row,) = await patient.rows()
    assert row.state == "running"
    patient.host.hold_create.set()
    assert (await creating).status_code == 201
    await patient.becomes(row.sandbox_id, "running")


async def test_what_its_host_has_lost_is_crashed(patient: World) -> None:
    sandbox_id = await patient.created()
    await patient.becomes(sandbox_id, "running")
    patient.host.sandboxes.clear()
    await check(patient)
    row = await patient.row(sandbox_id)
    assert row.state == "crashed"
    assert row.end_reason == "lost: node-1 does not have it any more"


async def test_nothing_is_lost_within_the_grace(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    world.host.sandboxes.clear()
    await check(world)
    await check(world)
    assert (await world.row(sandbox_id)).state == "running"


async def test_a_list_that_fails_proves_nothing(patient: World) -> None:
    sandbox_id = await patient.created()
    await patient.becomes(sandbox_id, "running")
    patient.host.fail_list = True
    patient.host.sandboxes.clear()
    with pytest.raises(NodeError) as caught:
        await check(patient)
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert (await patient.row(sandbox_id)).state == "running"


async def test_an_orphan_of_this_cluster_is_paused_after_the_grace(world: World) -> None:
    cluster_id = await world.store.cluster.cluster_id()
    world.host.sandboxes["iours"] = pb.RunningSandbox(
        sandbox_id="iours", execution_id="x", metadata={CLUSTER_METADATA: cluster_id}
    )
    world.host.sandboxes["itheirs"] = pb.RunningSandbox(
        sandbox_id="itheirs", execution_id="y", metadata={CLUSTER_METADATA: "another"}
    )
    await check(world)
    assert world.host.pauses == []
    comparison = world.services.reconciler._comparison(world.host.node_id)
    comparison.orphan_grace = timedelta(0)
    for _ in range(3):
        await check(world)
    assert list(world.host.paused) == ["iours"]
    assert list(world.host.sandboxes) == ["itheirs"]
    assert world.host.deleted == []


async def test_an_orphan_whose_sandbox_was_killed_is_ended(patient: World) -> None:
    for ending in ("running", "paused"):
        sandbox_id = await patient.created()
        running = await _runs(patient, sandbox_id)
        await patient.http.delete(f"/sandboxes/{sandbox_id}")
        if ending == "running":
            patient.host.sandboxes[sandbox_id] = running
        else:
            patient.host.keep(running)
        await check(patient)
        assert (patient.host.sandboxes, patient.host.paused) == ({}, {})


async def test_a_few_orphans_a_pass(patient: World) -> None:
    cluster_id = await patient.store.cluster.cluster_id()
    for number in range(5):
        patient.host.sandboxes[f"i{number}"] = pb.RunningSandbox(
            sandbox_id=f"i{number}",
            execution_id=f"x{number}",
            metadata={CLUSTER_METADATA: cluster_id},
        )
    await check(patient)
    assert len(patient.host.sandboxes) == 2
    await check(patient)
    assert patient.host.sandboxes == {}


async def test_new_templates_are_copied(world: World) -> None:
    world.host.templates.append(template(["python", "py"], "python00000000000000"))
    await check(world)
    assert (await world.create(templateID="py")).json()["templateID"] == "python00000000000000"


async def test_a_rebuilt_template_takes_its_name_along(world: World) -> None:
    await world.created()
    world.host.templates[:] = [template(["base"], "rebuilt0000000000000")]
    await check(world)
    assert (await world.create()).json()["templateID"] == "rebuilt0000000000000"


async def test_history_is_forgotten(world: World) -> None:
    killed, live = await world.created(), await world.created()
    await world.http.delete(f"/sandboxes/{killed}")
    assert await world.store.sandboxes.forget_ended(world.now() + timedelta(days=1)) == 1
    assert await world.store.sandboxes.get(killed) is None
    assert await world.store.sandboxes.get(live) is not None


async def _runs(world: World, sandbox_id: str) -> pb.RunningSandbox:
    """What the host has of it, when its record says that it runs."""
    await world.becomes(sandbox_id, "running")
    return world.host.sandboxes[sandbox_id]


async def test_a_pause_at_the_deadline(world: World) -> None:
    sandbox_id = await world.created(autoPause=True, autoPauseMemory=False)
    (node,) = world.services.nodes.all()
    following = asyncio.create_task(world.services.reconciler.follow_events(node))
    await world.host.report(sandbox_id, pb.OUTCOME_PAUSED)
    row = await world.becomes(sandbox_id, "paused")
    assert (row.paused_at, row.paused_memory, row.ended_at) == (MOMENT, False, None)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    assert (detail["state"], detail["pauseMode"]) == ("paused", "filesystem")
    assert detail["endAt"] == "2026-08-21T10:00:00.250000Z"


async def test_a_pause_whose_word_was_lost_is_found_in_the_list(patient: World) -> None:
    sandbox_id = await patient.created()
    patient.host.keep(await _runs(patient, sandbox_id))
    del patient.host.sandboxes[sandbox_id]
    await check(patient)
    assert (await patient.row(sandbox_id)).state == "paused"
    await check(patient)
    assert (await patient.row(sandbox_id)).state == "paused"


async def test_a_paused_one_that_is_in_no_list_is_lost(patient: World) -> None:
    sandbox_id = await paused(patient)
    patient.host.paused.clear()
    await check(patient)
    assert (await patient.row(sandbox_id)).state == "crashed"


@pytest.mark.parametrize("state", ["running", "paused"])
async def test_one_answer_alone_loses_nothing(patient: World, state: str) -> None:
    sandbox_id = await patient.created() if state == "running" else await paused(patient)
    await patient.becomes(sandbox_id, state)
    (node,) = patient.services.nodes.all()
    for name in ("sandboxes", "paused"):
        setattr(node, name, _empty_once(getattr(node, name)))
    await check(patient)
    assert (await patient.row(sandbox_id)).state == state


def _empty_once(question: Callable[[], Awaitable[list[Any]]]) -> object:
    asked = []

    async def ask() -> list[Any]:
        asked.append(question)
        return [] if len(asked) == 1 else await question()

    return ask


async def test_a_host_that_is_away_or_gone_keeps_what_is_paused_there(patient: World) -> None:
    sandbox_id = await paused(patient)
    await patient.host.stop()
    (node,) = patient.services.nodes.all()
    with pytest.raises(NodeError):
        await check(patient)
    assert node.info is not None
    node.info.node_id = "another"
    long_ago = patient.now() - timedelta(days=100)
    row = await patient.row(sandbox_id)
    await patient.store.sandboxes.set_deadline(sandbox_id, row.execution_id, long_ago)
    await patient.services.reconciler.tidy()
    assert (await patient.row(sandbox_id)).state == "paused"


async def test_a_crashed_one_that_is_paused_after_all(patient: World) -> None:
    sandbox_id = await paused(patient)
    kept = dict(patient.host.paused)
    patient.host.paused.clear()
    await check(patient)
    patient.host.paused.update(kept)
    await check(patient)
    row = await patient.row(sandbox_id)
    assert (row.state, row.ended_at, row.end_reason) == ("paused", None, None)


async def test_a_pause_that_never_began_is_over_after_its_time(patient: World) -> None:
    sandbox_id = await patient.created()
    row = await patient.becomes(sandbox_id, "running")
    await patient.services.pauser._keeper.apply(row, PauseAsked(row.execution_id))
    await check(patient)
    assert (await patient.row(sandbox_id)).state == "pausing"
    comparison = patient.services.reconciler._comparison(patient.host.node_id)
    comparison.pause_timeout = timedelta(0)
    await check(patient)
    assert (await patient.row(sandbox_id)).state == "running"


async def test_a_resume_whose_answer_was_lost(patient: World) -> None:
    for there in ("running", "paused", "nowhere"):
        sandbox_id = await paused(patient)
        keeper = patient.services.pauser._keeper
        begun = await keeper.resume(await patient.row(sandbox_id), timedelta(0))
        assert begun is not None
        if there != "paused":
            kept = patient.host.paused.pop(sandbox_id)
        if there == "running":
            patient.host.sandboxes[sandbox_id] = pb.RunningSandbox(
                sandbox_id=sandbox_id,
                execution_id=begun.execution_id,
                build_id=kept.build_id,
                state="running",
            )
        await check(patient)
        expected = "crashed" if there == "nowhere" else there
        assert (await patient.row(sandbox_id)).state == expected


async def _acknowledged(world: World, number: int) -> bool:
    return world.host.acknowledged == number
