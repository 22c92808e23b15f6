"""Connect and resume of paused sandboxes, and races."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb

from .harness import World, eventually, paused, running, settings_for, spied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from .standin import Standin


async def connect(world: World, sandbox_id: str, **body: object) -> httpx.Response:
    return await world.http.post(f"/v2/sandboxes/{sandbox_id}/connect", json=body)


@pytest.fixture
async def hasty(tmp_path: Path, host: Standin) -> AsyncIterator[World]:
    """An API server that waits for a resume a moment only."""
    settings = settings_for(tmp_path, host, create_timeout=0.5, connect_timeout=0.3)
    async with running(settings, host) as made:
        yield made


@pytest.mark.parametrize("path", ["/v2/sandboxes/{}/connect", "/sandboxes/{}/connect"])
async def test_connect_resumes(world: World, path: str) -> None:
    created = (
        await world.create(
            metadata={"k": "v"}, network={"allowPublicTraffic": False}, autoPause=True
        )
    ).json()
    sandbox_id = created["sandboxID"]
    before = await world.becomes(sandbox_id, "running")
    await world.http.post(f"/sandboxes/{sandbox_id}/pause")
    answer = await world.http.post(path.format(sandbox_id), json={"timeout": 77})
    assert answer.status_code == 201
    assert answer.json() == created
    row = await world.row(sandbox_id)
    assert row.state == "running"
    assert row.execution_id != before.execution_id
    assert (row.end_at - row.started_at) == timedelta(seconds=77)
    request = world.host.creates[-1]
    assert request.end_time.ToDatetime(row.end_at.tzinfo) == row.end_at
    config = request.sandbox
    assert config.snapshot
    assert config.auto_pause
    assert config.execution_id == row.execution_id
    assert config.envd_access_token == created["envdAccessToken"]
    assert config.network.ingress.traffic_access_token == created["trafficAccessToken"]
    assert not request.filesystem_boot
    detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    assert detail["state"] == "running"
    assert "pauseMode" not in detail


async def test_again_and_again(world: World) -> None:
    sandbox_id = await world.created()
    for _ in range(5):
        assert (await world.http.post(f"/sandboxes/{sandbox_id}/pause")).status_code == 204
        assert (await connect(world, sandbox_id)).status_code == 201
        assert (await connect(world, sandbox_id)).status_code == 200
    runs = {request.sandbox.execution_id for request in world.host.creates}
    assert len(runs) == 6


@pytest.mark.parametrize(("memory", "boots"), [(False, True), (True, False)])
async def test_booting_it_from_its_files(world: World, memory: bool, boots: bool) -> None:
    sandbox_id = await paused(world)
    assert (await connect(world, sandbox_id, memory=memory)).status_code == 201
    assert world.host.creates[-1].filesystem_boot is boots


async def test_what_has_only_files_boots(world: World) -> None:
    sandbox_id = await world.created()
    await world.http.post(f"/sandboxes/{sandbox_id}/pause", json={"memory": False})
    assert (await connect(world, sandbox_id)).status_code == 201
    assert world.host.creates[-1].filesystem_boot


async def test_a_notice_is_shown_until_the_next_start(world: World) -> None:
    sandbox_id = await paused(world)
    world.host.notice = "its memory belongs to another QEMU: started from its files"
    await connect(world, sandbox_id)
    await eventually(lambda: _notice(world, sandbox_id, world.host.notice))
    await world.http.post(f"/sandboxes/{sandbox_id}/pause")
    world.host.notice = ""
    await connect(world, sandbox_id)
    await eventually(lambda: _notice(world, sandbox_id, None))


async def _notice(world: World, sandbox_id: str, expected: str | None) -> bool:
    detail = (await world.http.get(f"/sandboxes/{sandbox_id}")).json()
    return bool(detail.get("notice") == expected)


async def test_resume_of_old_sdks(world: World) -> None:
    sandbox_id = await paused(world)
    path = f"/sandboxes/{sandbox_id}/resume"
    answer = await world.http.post(path, json={"autoPause": True})
    assert answer.status_code == 201
    assert answer.json()["sandboxID"] == sandbox_id
    row = await world.row(sandbox_id)
    assert row.end_at - row.started_at == timedelta(seconds=15)
    assert row.auto_pause
    assert world.host.creates[-1].sandbox.auto_pause
    answer = await world.http.post(path)
    assert answer.json()["code"] == 409
    assert (await world.http.post("/sandboxes/inotthere/resume")).status_code == 404


@pytest.mark.parametrize("path", ["/v2/sandboxes/{}/connect", "/sandboxes/{}/resume"])
async def test_timeouts_are_checked(world: World, path: str) -> None:
    await world.limit(max_length_hours=1)
    sandbox_id = await paused(world)
    for timeout in (0, 3601):
        answer = await world.http.post(path.format(sandbox_id), json={"timeout": timeout})
        assert answer.status_code == 400
    assert (await world.row(sandbox_id)).state == "paused"


@pytest.mark.parametrize("path", ["/v2/sandboxes/{}/connect", "/sandboxes/{}/resume"])
async def test_resumes_at_once_share_one_run(world: World, path: str) -> None:
    sandbox_id = await paused(world)
    world.host.hold_create = asyncio.Event()
    world.host.create_began.clear()
    joined = spied(world.services.resumer._resuming, "call")
    url = path.format(sandbox_id)
    both = [
        asyncio.create_task(world.http.post(url, json={"timeout": seconds}))
        for seconds in (20, 900)
    ]
    await joined.count(2)
    world.host.hold_create.set()
    answers = [await one for one in both]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len({request.sandbox.execution_id for request in world.host.creates[1:]}) == 1
    row = await world.row(sandbox_id)
    assert row.end_at - row.started_at > timedelta(seconds=890)
    told = world.host.sandboxes[sandbox_id].end_time.ToDatetime(row.end_at.tzinfo)
    assert told == row.end_at


async def test_a_resume_during_a_pause_waits_for_it(world: World) -> None:
    sandbox_id = await world.created()
    world.host.hold_pause = asyncio.Event()
    pausing = asyncio.create_task(world.http.post(f"/sandboxes/{sandbox_id}/pause"))
    await world.host.pause_began.wait()
    joined = spied(world.services.pauser._pausing, "call")
    resuming = asyncio.create_task(connect(world, sandbox_id))
    await joined.count(1)
    assert world.host.calls == ["create", "pause"]
    world.host.hold_pause.set()
    assert (await pausing).status_code == 204
    assert (await resuming).status_code == 201
    assert world.host.calls == ["create", "pause", "create"]
    assert (await world.row(sandbox_id)).state == "running"


async def test_a_resume_during_a_pause_that_fails(world: World) -> None:
    sandbox_id = await world.created()
    row = await world.becomes(sandbox_id, "running")
    world.host.hold_pause = asyncio.Event()
    world.host.fail_pause = (grpc.StatusCode.INTERNAL, "the disk failed")
    failing = asyncio.create_task(world.http.post(f"/sandboxes/{sandbox_id}/pause"))
    await world.host.pause_began.wait()
    joined = spied(world.services.pauser._pausing, "call")
    connecting = asyncio.create_task(connect(world, sandbox_id))
    await joined.count(1)
    world.host.hold_pause.set()
    assert (await failing).status_code == 500
    assert (await connecting).status_code == 200
    assert (await world.row(sandbox_id)).execution_id == row.execution_id


async def test_a_kill_during_a_resume_wins(world: World) -> None:
    sandbox_id = await paused(world)
    world.host.hold_create = asyncio.Event()
    world.host.create_began.clear()
    resuming = asyncio.create_task(connect(world, sandbox_id))
    await world.host.create_began.wait()
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 204
    world.host.hold_create.set()
    assert (await resuming).status_code == 404
    assert (await world.row(sandbox_id)).state == "killed"
    assert (world.host.sandboxes, world.host.paused) == ({}, {})


async def test_a_kill_that_looked_before_the_resume_began(world: World) -> None:
    sandbox_id = await paused(world)
    store = world.services.living._store
    look = store.own

    async def look_and_be_overtaken(team_id: str, wanted: str) -> object:
        row = await look(team_id, wanted)
        store.own = look  # type: ignore[method-assign]
        assert (await connect(world, sandbox_id)).status_code == 201
        return row

    store.own = look_and_be_overtaken  # type: ignore[assignment, method-assign]
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 204
    assert (world.host.sandboxes, world.host.paused) == ({}, {})


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503),
        (grpc.StatusCode.FAILED_PRECONDITION, 409),
        (grpc.StatusCode.ALREADY_EXISTS, 409),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
async def test_a_resume_that_fails_leaves_it_paused(
    world: World, code: grpc.StatusCode, status: int
) -> None:
    sandbox_id = await paused(world)
    before = await world.row(sandbox_id)
    world.host.fail_create = (code, "no memory left")
    answer = await connect(world, sandbox_id)
    assert answer.status_code == status
    assert status == 404 or "no memory left" in answer.json()["message"]
    row = await world.row(sandbox_id)
    assert (row.state, row.paused_at, row.paused_memory) == (
        "paused",
        before.paused_at,
        before.paused_memory,
    )
    world.host.fail_create = None
    assert (await connect(world, sandbox_id)).status_code == 201


async def test_the_host_says_later_that_a_resume_failed(hasty: World) -> None:
    sandbox_id = await paused(hasty)
    hasty.host.hold_create = asyncio.Event()
    assert (await connect(hasty, sandbox_id)).status_code == 504
    row = await hasty.row(sandbox_id)
    assert row.state == "resuming"
    event = pb.SandboxEvent(
        sandbox_id=sandbox_id, execution_id=row.execution_id, outcome=pb.OUTCOME_PAUSED
    )
    await hasty.services.reconciler._apply(event)
    again = await hasty.row(sandbox_id)
    assert (again.state, again.paused_at) == ("paused", row.paused_at)


async def test_a_resume_whose_answer_is_lost_is_finished_by_the_next(hasty: World) -> None:
    sandbox_id = await paused(hasty)
    hasty.host.hold_create = asyncio.Event()
    assert (await connect(hasty, sandbox_id)).status_code == 504
    hasty.host.hold_create = None
    assert (await connect(hasty, sandbox_id)).status_code == 201
    runs = [request.sandbox.execution_id for request in hasty.host.creates[1:]]
    assert len(runs) == 2
    assert len(set(runs)) == 1
    assert (await hasty.row(sandbox_id)).state == "running"


async def test_a_host_that_is_away_keeps_it(hasty: World) -> None:
    sandbox_id = await paused(hasty)
    await hasty.host.stop()
    answer = await connect(hasty, sandbox_id)
    assert answer.status_code == 503
    assert (await hasty.row(sandbox_id)).state == "paused"
    await hasty.host.start()
    assert (await connect(hasty, sandbox_id)).status_code == 201


async def test_late_words_of_the_run_before(world: World) -> None:
    sandbox_id = await world.created()
    before = await world.becomes(sandbox_id, "running")
    await world.http.post(f"/sandboxes/{sandbox_id}/pause")
    await connect(world, sandbox_id)
    for outcome in (pb.OUTCOME_PAUSED, pb.OUTCOME_EXPIRED, pb.OUTCOME_CRASHED):
        await world.services.reconciler._apply(
            pb.SandboxEvent(
                sandbox_id=sandbox_id, execution_id=before.execution_id, outcome=outcome
            )
        )
    assert (await world.row(sandbox_id)).state == "running"


@pytest.mark.parametrize("busy", [True, False])
async def test_a_deadline_pauses_it_before_connect_extends_it(world: World, busy: bool) -> None:
    sandbox_id = await world.created(autoPause=True)
    await world.becomes(sandbox_id, "running")
    running = world.host.sandboxes.pop(sandbox_id)
    if busy:
        running.state = "pausing"
        (node,) = world.services.nodes.all()
        asked = spied(node, "paused")
        listed = spied(node, "sandboxes")
        world.host.sandboxes["it is not to be updated any more"] = running
        connecting = asyncio.create_task(connect(world, sandbox_id))
        await listed.count(2)
        assert asked.made == 0
        world.host.keep(world.host.sandboxes.popitem()[1])
        answer = await connecting
    else:
        world.host.keep(running)
        answer = await connect(world, sandbox_id)
    assert answer.status_code == 201
    assert (await world.row(sandbox_id)).state == "running"
    assert sandbox_id in world.host.sandboxes


async def test_a_sandbox_that_ended_before_connect_extends_it(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    world.host.sandboxes.clear()
    assert (await connect(world, sandbox_id)).status_code == 404
