"""Forks: one checkpoint, many children, each with its own fate."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from .harness import World, paused
from .standin import BASE_ID

if TYPE_CHECKING:
    import httpx


async def fork(world: World, sandbox_id: str, **body: object) -> httpx.Response:
    return await world.http.post(f"/sandboxes/{sandbox_id}/fork", json=body)


async def test_one_child(world: World) -> None:
    parent = (await world.create(metadata={"k": "v"}, network={"allowPublicTraffic": False})).json()
    answer = await world.http.post(f"/sandboxes/{parent['sandboxID']}/fork")
    assert answer.status_code == 201
    ((result),) = answer.json()
    assert set(result) == {"sandbox"}
    child = result["sandbox"]
    assert child["templateID"] == BASE_ID
    assert child["alias"] == "base"
    (build,) = world.host.builds.values()
    config = world.host.configs[child["sandboxID"]]
    assert (config.template_id, config.build_id) == (build.template_id, build.build_id)
    assert config.envd_access_token == child["envdAccessToken"]
    assert config.network.ingress.traffic_access_token == child["trafficAccessToken"]
    for name in ("sandboxID", "envdAccessToken", "trafficAccessToken"):
        assert child[name] != parent[name]
    row = await world.row(child["sandboxID"])
    assert row.end_at - row.started_at == timedelta(seconds=15)
    detail = (await world.http.get(f"/sandboxes/{child['sandboxID']}")).json()
    assert (detail["templateID"], detail["metadata"]) == (BASE_ID, {"k": "v"})
    assert len(world.host.sandboxes) == 2
    found = await world.http.get("/v2/sandboxes", params={"template": "base"})
    assert len(found.json()) == 2


async def test_a_child_has_its_parents_options(world: World) -> None:
    network = {"denyOut": ["0.0.0.0/0"], "allowOut": ["192.0.2.1"], "maskRequestHost": "a.example"}
    parent = await world.created(
        autoPause=True, autoResume={"enabled": True}, network=network, allow_internet_access=False
    )
    (result,) = (await fork(world, parent, timeout=99)).json()
    row = await world.row(result["sandbox"]["sandboxID"])
    assert (row.auto_pause, row.auto_resume, row.timeout) == (True, True, 99)
    assert world.host.configs[row.sandbox_id].auto_pause
    assert world.host.configs[row.sandbox_id].network == world.host.configs[parent].network
    assert row.allow_internet_access is False


async def test_many_children_of_one_checkpoint(world: World) -> None:
    parent = await world.created()
    answer = await fork(world, parent, count=20)
    ids = {one["sandbox"]["sandboxID"] for one in answer.json()}
    assert len(ids) == 20
    assert len(world.host.builds) == 1
    assert len(world.host.sandboxes) == 21


@pytest.mark.parametrize("count", [0, -1, 101])
async def test_counts_that_are_wrong(world: World, count: int) -> None:
    parent = await world.created()
    answer = await fork(world, parent, count=count)
    assert answer.json() == {"code": 400, "message": "count must be between 1 and 100"}
    assert world.host.builds == {}


async def test_timeouts_are_checked(world: World) -> None:
    parent = await world.created()
    assert (await fork(world, parent, timeout=0)).status_code == 400


async def test_each_succeeds_or_fails_alone(world: World) -> None:
    parent = await world.created()
    await world.limit(concurrent_sandboxes=3)
    answer = await fork(world, parent, count=4)
    assert answer.status_code == 201
    codes = sorted(one["error"]["code"] if "error" in one else 201 for one in answer.json())
    assert codes == [201, 201, 429, 429]


async def test_every_child_fails(world: World) -> None:
    parent = await world.created()
    world.host.capacity = 1
    (result,) = (await fork(world, parent)).json()
    assert result["error"]["code"] == 503
    assert "no memory left" in result["error"]["message"]
    await world.services.reconciler.tidy()
    assert world.host.builds == {}


@pytest.mark.parametrize(("state", "status"), [("paused", 409), ("killed", 404)])
async def test_only_of_what_runs(world: World, state: str, status: int) -> None:
    parent = await paused(world)
    if state == "killed":
        await world.http.delete(f"/sandboxes/{parent}")
    answer = await fork(world, parent)
    assert answer.json()["code"] == status
    assert (await fork(world, "inotthere")).status_code == 404


async def test_while_it_is_being_paused(world: World) -> None:
    parent = await world.created()
    world.host.hold_pause = asyncio.Event()
    pausing = asyncio.create_task(world.http.post(f"/sandboxes/{parent}/pause"))
    await world.becomes(parent, "pausing")
    assert (await fork(world, parent)).status_code == 409
    world.host.hold_pause.set()
    assert (await pausing).status_code == 204


@pytest.mark.parametrize(
    ("code", "status"),
    [(grpc.StatusCode.RESOURCE_EXHAUSTED, 503), (grpc.StatusCode.INTERNAL, 500)],
)
async def test_a_checkpoint_that_fails(world: World, code: grpc.StatusCode, status: int) -> None:
    parent = await world.created()
    world.host.fail_checkpoint = (code, "no disk left")
    answer = await fork(world, parent, count=3)
    assert answer.status_code == status
    assert len(world.host.sandboxes) == 1


async def test_the_checkpoint_goes_with_the_last_child(world: World) -> None:
    parent = await world.created()
    results = (await fork(world, parent, count=2)).json()
    one, two = (result["sandbox"]["sandboxID"] for result in results)
    assert (await world.http.get("/snapshots")).json() == []
    await world.http.delete(f"/sandboxes/{one}")
    await world.http.post(f"/sandboxes/{two}/pause")
    await world.services.reconciler.tidy()
    assert len(world.host.builds) == 1
    assert (await world.http.post(f"/v2/sandboxes/{two}/connect")).status_code == 201
    await world.http.delete(f"/sandboxes/{two}")
    await world.services.reconciler.tidy()
    assert world.host.builds == {}


async def test_a_child_can_be_forked_too(world: World) -> None:
    parent = await world.created()
    (first,) = (await fork(world, parent)).json()
    (second,) = (await fork(world, first["sandbox"]["sandboxID"])).json()
    assert second["sandbox"]["templateID"] == BASE_ID
