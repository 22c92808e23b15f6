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

from .harness import World, eventually, running, settings_for
from .standin import template

if TYPE_CHECKING:
    from pathlib import Path

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
        world.services.reconciler.start()
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


async def test_an_orphan_of_this_cluster_is_ended_after_the_grace(world: World) -> None:
    cluster_id = await world.store.cluster.cluster_id()
    world.host.sandboxes["iours"] = pb.RunningSandbox(
        sandbox_id="iours", execution_id="x", metadata={CLUSTER_METADATA: cluster_id}
    )
    world.host.sandboxes["itheirs"] = pb.RunningSandbox(
        sandbox_id="itheirs", execution_id="y", metadata={CLUSTER_METADATA: "another"}
    )
    await check(world)
    assert world.host.deleted == []
    comparison = world.services.reconciler._comparison(world.host.node_id)
    comparison.orphan_grace = timedelta(0)
    await check(world)
    assert world.host.deleted == ["iours"]
    assert list(world.host.sandboxes) == ["itheirs"]


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


async def test_a_host_that_is_gone_for_good_gives_quota_back(world: World) -> None:
    sandbox_id = await world.created(timeout=1)
    await world.becomes(sandbox_id, "running")
    (node,) = world.services.nodes.all()
    await world.services.reconciler.tidy()
    assert (await world.row(sandbox_id)).state == "running"
    world.host.node_id = "another"
    await node.refresh_info()
    await world.services.reconciler.tidy()
    assert (await world.row(sandbox_id)).state == "running"
    long_ago = world.now() - timedelta(hours=1)
    row = await world.row(sandbox_id)
    await world.store.sandboxes.set_deadline(sandbox_id, row.execution_id, long_ago)
    await world.services.reconciler.tidy()
    assert (await world.row(sandbox_id)).state == "crashed"


async def test_history_is_forgotten(world: World) -> None:
    killed, live = await world.created(), await world.created()
    await world.http.delete(f"/sandboxes/{killed}")
    assert await world.store.sandboxes.forget_ended(world.now() + timedelta(days=1)) == 1
    assert await world.store.sandboxes.get(killed) is None
    assert await world.store.sandboxes.get(live) is not None


async def _acknowledged(world: World, number: int) -> bool:
    return world.host.acknowledged == number
