"""Pause over REST: answers, what is shown of a paused sandbox, and races."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb

from .harness import World, paused, running, settings_for, spied
from .standin import MOMENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from .standin import Standin


async def pause(world: World, sandbox_id: str, **body: object) -> httpx.Response:
    return await world.http.post(f"/sandboxes/{sandbox_id}/pause", json=body)


@pytest.fixture
async def hasty(tmp_path: Path, host: Standin) -> AsyncIterator[World]:
    """An API server that waits for a pause a moment only."""
    settings = settings_for(tmp_path, host, pause_timeout=0.3, connect_timeout=0.3)
    async with running(settings, host) as made:
        yield made


async def test_at_once_after_create(world: World) -> None:
    created = (await world.create(metadata={"k": "v"}, timeout=60)).json()
    sandbox_id = created["sandboxID"]
    before = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    answer = await pause(world, sandbox_id)
    assert (answer.status_code, answer.content) == (204, b"")
    assert world.host.sandboxes == {}
    assert list(world.host.paused) == [sandbox_id]
    detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    assert detail == before | {
        "state": "paused",
        "pauseMode": "full",
        "endAt": MOMENT.isoformat().replace("+00:00", "Z"),
    }


async def test_files_alone(world: World) -> None:
    sandbox_id = await world.created()
    assert (await pause(world, sandbox_id, memory=False)).status_code == 204
    assert world.host.pauses[0].filesystem_only
    detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    assert detail["pauseMode"] == "filesystem"


@pytest.mark.parametrize("answered", [True, False])
async def test_its_outbox_tells_of_the_pause_first(world: World, answered: bool) -> None:
    sandbox_id = await world.created()
    world.host.hold_pause = asyncio.Event()
    pausing = asyncio.create_task(pause(world, sandbox_id, memory=False))
    await world.host.pause_began.wait()
    row = await world.becomes(sandbox_id, "pausing")
    event = pb.SandboxEvent(
        sandbox_id=sandbox_id,
        execution_id=row.execution_id,
        outcome=pb.OUTCOME_PAUSED,
        at=MOMENT,
    )
    await world.services.reconciler._apply(event)
    assert (await world.row(sandbox_id)).state == "paused"
    if answered:
        world.host.hold_pause.set()
        assert (await pausing).status_code == 204
    else:
        pausing.cancel()
        await world.services.reconciler.check(world.services.nodes.all()[0])
    row = await world.row(sandbox_id)
    assert (row.paused_memory, row.paused_at) == (False, MOMENT)
    world.host.hold_pause.set()  # or the API server's end would wait for its answer


async def test_without_a_body(world: World) -> None:
    sandbox_id = await world.created()
    assert (await world.http.post(f"/sandboxes/{sandbox_id}/pause")).status_code == 204
    assert not world.host.pauses[0].filesystem_only
    assert not world.host.pauses[0].require_healthy_guest


async def test_a_guest_that_does_not_answer(world: World) -> None:
    sandbox_id = await world.created()
    world.host.fail_pause = (grpc.StatusCode.FAILED_PRECONDITION, "envd does not answer")
    answer = await pause(world, sandbox_id, requireHealthyGuest=True)
    assert answer.status_code == 503
    assert world.host.pauses[0].require_healthy_guest
    assert (await world.row(sandbox_id)).state == "running"


async def test_a_paused_one(world: World) -> None:
    sandbox_id = await paused(world)
    answer = await pause(world, sandbox_id)
    assert answer.json() == {
        "code": 409,
        "message": f"Error pausing sandbox - sandbox '{sandbox_id}' is already paused",
    }
    assert len(world.host.pauses) == 1


async def test_what_is_not_there(world: World) -> None:
    assert (await pause(world, "inotthere")).status_code == 404
    sandbox_id = await world.created()
    async with await world.other_team() as other:
        assert (await other.post(f"/sandboxes/{sandbox_id}/pause")).status_code == 404
    await world.http.delete(f"/sandboxes/{sandbox_id}")
    assert (await pause(world, sandbox_id)).status_code == 404


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503),
        (grpc.StatusCode.UNIMPLEMENTED, 503),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
async def test_a_refusal_leaves_it_running(
    world: World, code: grpc.StatusCode, status: int
) -> None:
    sandbox_id = await world.created()
    world.host.fail_pause = (code, "no disk left")
    answer = await pause(world, sandbox_id)
    assert answer.status_code == status
    expected = f"Failed to pause sandbox {sandbox_id}: node-1: no disk left"
    assert answer.json()["message"] == expected
    assert (await world.row(sandbox_id)).state == "running"
    world.host.fail_pause = None
    assert (await pause(world, sandbox_id)).status_code == 204


async def test_a_host_that_is_away_leaves_it_running(hasty: World) -> None:
    sandbox_id = await hasty.created()
    await hasty.becomes(sandbox_id, "running")
    await hasty.host.stop()
    answer = await pause(hasty, sandbox_id)
    assert answer.status_code == 503
    assert (await hasty.row(sandbox_id)).state == "running"


async def test_who_pauses_twice_at_once_shares_one_pause(world: World) -> None:
    sandbox_id = await world.created()
    world.host.hold_pause = asyncio.Event()
    joined = spied(world.services.pauser._pausing, "call")
    both = [asyncio.create_task(pause(world, sandbox_id)) for _ in range(2)]
    await world.becomes(sandbox_id, "pausing")
    assert (await world.http.get(f"/sandboxes/{sandbox_id}")).json()["state"] == "paused"
    await joined.count(2)
    world.host.hold_pause.set()
    assert [(await one).status_code for one in both] == [204, 204]
    assert len(world.host.pauses) == 1


async def test_a_kill_during_a_pause_wins(world: World) -> None:
    sandbox_id = await world.created()
    world.host.hold_pause = asyncio.Event()
    pausing = asyncio.create_task(pause(world, sandbox_id))
    await world.host.pause_began.wait()
    killed = await world.http.delete(f"/sandboxes/{sandbox_id}")
    world.host.hold_pause.set()
    assert killed.status_code == 204
    assert (await pausing).status_code == 404
    assert (await world.row(sandbox_id)).state == "killed"
    assert (world.host.sandboxes, world.host.paused) == ({}, {})


async def test_a_pause_during_a_kill_finds_nothing(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    world.host.hold_delete = asyncio.Event()
    killing = asyncio.create_task(world.http.delete(f"/sandboxes/{sandbox_id}"))
    await world.becomes(sandbox_id, "killing")
    assert (await pause(world, sandbox_id)).status_code == 404
    world.host.hold_delete.set()
    assert (await killing).status_code == 204


async def test_a_pause_whose_answer_is_lost_is_finished_by_the_next(hasty: World) -> None:
    sandbox_id = await hasty.created()
    hasty.host.hold_pause = asyncio.Event()
    assert (await pause(hasty, sandbox_id)).status_code == 503
    assert (await hasty.row(sandbox_id)).state == "pausing"
    hasty.host.hold_pause = None
    assert (await pause(hasty, sandbox_id)).status_code == 204
    assert (await hasty.row(sandbox_id)).state == "paused"


async def test_its_deadline_paused_it_first(world: World) -> None:
    sandbox_id = await world.created(autoPause=True)
    await world.becomes(sandbox_id, "running")
    world.host.keep(world.host.sandboxes.pop(sandbox_id))
    world.host.fail_pause = (grpc.StatusCode.NOT_FOUND, "it does not run here")
    assert (await pause(world, sandbox_id)).status_code == 204
    assert (await world.row(sandbox_id)).state == "paused"


async def test_a_sandbox_that_ended_first(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    world.host.sandboxes.clear()
    assert (await pause(world, sandbox_id)).status_code == 404


async def test_kill(world: World) -> None:
    sandbox_id = await paused(world)
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 204
    assert world.host.paused == {}
    assert (await world.http.get(f"/sandboxes/{sandbox_id}")).status_code == 404
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 404


@pytest.mark.parametrize("path", ["timeout", "refreshes"])
async def test_a_paused_one_has_no_deadline(world: World, path: str) -> None:
    sandbox_id = await paused(world)
    answer = await world.http.post(f"/sandboxes/{sandbox_id}/{path}", json={"timeout": 10})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("state", "expected"),
    [("running", "r"), ("paused", "p"), ("running,paused", "pr"), ("", "pr")],
)
async def test_lists(world: World, state: str, expected: str) -> None:
    ids = {"r": await world.created(), "p": await paused(world)}
    query = f"?state={state}" if state else ""
    listed = (await world.http.get(f"/v2/sandboxes{query}")).json()
    assert [one["sandboxID"] for one in listed] == [ids[one] for one in expected]
    shown = {one["sandboxID"]: one["state"] for one in listed}
    assert shown == {ids[one]: {"r": "running", "p": "paused"}[one] for one in expected}
    (only,) = (await world.http.get("/sandboxes")).json()
    assert only["sandboxID"] == ids["r"]


async def test_a_timeout_for_one_that_its_deadline_paused(world: World) -> None:
    sandbox_id = await world.created(autoPause=True)
    await world.becomes(sandbox_id, "running")
    world.host.keep(world.host.sandboxes.pop(sandbox_id))
    answer = await world.http.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": 10})
    assert answer.status_code == 404
    (node,) = world.services.nodes.all()
    await world.services.reconciler.check(node)
    assert (await world.row(sandbox_id)).state == "paused"


async def test_a_paused_one_holds_no_quota_but_its_disk(world: World) -> None:
    await world.limit(concurrent_sandboxes=1, total_vcpu=2, total_ram_mb=512, total_disk_mb=2048)
    first = await paused(world)
    second = await world.created()
    path = f"/v2/sandboxes/{first}/connect"
    answer = await world.http.post(path)
    assert answer.status_code == 429
    assert (await world.row(first)).state == "paused"
    assert (await pause(world, second)).status_code == 204
    refused = await world.create()
    assert refused.status_code == 429
    assert "MiB of disk" in refused.json()["message"]
    assert (await world.http.post(path)).status_code == 201
    assert (await world.create()).status_code == 429


async def test_resumes_at_once_do_not_pass_the_quota(world: World) -> None:
    ids = [await paused(world) for _ in range(6)]
    await world.limit(concurrent_sandboxes=2)
    answers = await asyncio.gather(
        *(world.http.post(f"/v2/sandboxes/{one}/connect") for one in ids)
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201, 201, 429, 429, 429, 429]
    assert len(world.host.sandboxes) == 2


async def test_it_outlives_its_deadline_and_history(world: World) -> None:
    sandbox_id = await paused(world, timeout=1)
    assert await world.store.sandboxes.forget_ended(world.now() + timedelta(days=400)) == 0
    await world.services.reconciler.tidy()
    assert (await world.row(sandbox_id)).state == "paused"
