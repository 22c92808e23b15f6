"""Snapshots: made, listed, used as template, deleted, swept."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import pytest

from .harness import World, eventually, paused

if TYPE_CHECKING:
    import httpx


async def snapshot(world: World, sandbox_id: str, **body: object) -> httpx.Response:
    return await world.http.post(f"/sandboxes/{sandbox_id}/snapshots", json=body)


async def delete(world: World, snapshot_id: str) -> httpx.Response:
    return await world.http.delete(f"/templates/{quote(snapshot_id, safe='')}")


async def made(world: World, sandbox_id: str, **body: object) -> str:
    answer = await snapshot(world, sandbox_id, **body)
    assert answer.status_code == 201, answer.text
    snapshot_id: str = answer.json()["snapshotID"]
    return snapshot_id


async def listed(world: World, **query: str) -> list[str]:
    answer = await world.http.get("/snapshots", params=query)
    assert answer.status_code == 200, answer.text
    return [one["snapshotID"] for one in answer.json()]


async def test_one_without_a_name(world: World) -> None:
    sandbox_id = await world.created()
    answer = await snapshot(world, sandbox_id)
    assert answer.status_code == 201
    (build,) = world.host.builds.values()
    assert answer.json() == {"snapshotID": f"{build.template_id}:default", "names": []}
    assert not build.filesystem_only
    assert (await world.http.get(f"/sandboxes/{sandbox_id}")).json()["state"] == "running"
    for reference in (build.template_id, f"{build.template_id}:default"):
        body = (await world.create(templateID=reference)).json()
        assert body["templateID"] == build.template_id
        config = world.host.configs[body["sandboxID"]]
        assert (config.template_id, config.build_id) == (build.template_id, build.build_id)
        assert not config.snapshot
        assert config.envd_access_token == body["envdAccessToken"]


@pytest.mark.parametrize(
    ("name", "snapshot_id", "names"),
    [
        ("Tools", "default/tools:default", ["default/tools"]),
        ("default/tools", "default/tools:default", ["default/tools"]),
        ("tools:v2", "default/tools:v2", ["default/tools:v2"]),
    ],
)
async def test_one_with_a_name(world: World, name: str, snapshot_id: str, names: list[str]) -> None:
    sandbox_id = await world.created()
    answer = await snapshot(world, sandbox_id, name=name)
    assert answer.json() == {"snapshotID": snapshot_id, "names": names}
    for reference in (name, snapshot_id):
        created = await world.create(templateID=reference)
        assert created.status_code == 201
        assert created.json()["alias"] == "default/tools"


async def test_files_alone(world: World) -> None:
    sandbox_id = await world.created()
    snapshot_id = await made(world, sandbox_id, memory=False)
    (build,) = world.host.builds.values()
    assert build.filesystem_only
    await world.created(templateID=snapshot_id)
    assert world.host.creates[-1].filesystem_boot


@pytest.mark.parametrize("name", ["a b", "other/tools", "a" * 200])
async def test_names_that_are_wrong(world: World, name: str) -> None:
    sandbox_id = await world.created()
    answer = await snapshot(world, sandbox_id, name=name)
    assert answer.status_code == 400
    assert world.host.builds == {}


async def test_the_same_name_again_is_another_build(world: World) -> None:
    sandbox_id = await world.created()
    first = await made(world, sandbox_id, name="tools")
    child = await world.created(templateID="tools")
    assert await made(world, sandbox_id, name="tools") == first
    one, two = world.host.builds.values()
    assert one.template_id == two.template_id
    assert await listed(world) == [first]
    newer = await world.created(templateID="tools")
    assert world.host.configs[newer].build_id == two.build_id
    # The first build goes when nothing stands on it any more.
    await world.services.reconciler.tidy()
    assert len(world.host.builds) == 2
    await world.http.delete(f"/sandboxes/{child}")
    await world.services.reconciler.tidy()
    assert list(world.host.builds) == [two.build_id]


async def test_tags_of_one_name(world: World) -> None:
    sandbox_id = await world.created()
    ids = [await made(world, sandbox_id, name=f"tools:{tag}") for tag in ("v1", "v2")]
    assert await listed(world) == ids[::-1]
    assert (await world.create(templateID="tools")).status_code == 404
    assert (await delete(world, ids[0])).status_code == 204
    assert await listed(world) == ids[1:]
    assert (await world.create(templateID=ids[0])).status_code == 404
    assert (await world.create(templateID=ids[1])).status_code == 201


@pytest.mark.parametrize("state", ["paused", "gone"])
async def test_only_of_what_runs(world: World, state: str) -> None:
    sandbox_id = await paused(world)
    if state == "gone":
        await world.http.delete(f"/sandboxes/{sandbox_id}")
    answer = await snapshot(world, sandbox_id)
    assert answer.status_code == 404
    assert (await snapshot(world, "inotthere")).status_code == 404
    assert world.host.builds == {}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503),
        (grpc.StatusCode.INTERNAL, 500),
        (grpc.StatusCode.NOT_FOUND, 404),
    ],
)
async def test_one_that_fails_leaves_nothing(
    world: World, code: grpc.StatusCode, status: int
) -> None:
    sandbox_id = await world.created()
    world.host.fail_checkpoint = (code, "no disk left")
    assert (await snapshot(world, sandbox_id, name="tools")).status_code == status
    assert await listed(world) == []
    assert (await world.create(templateID="tools")).status_code == 404
    assert await world.store.builds.garbage(world.now() + timedelta(days=1)) == []
    world.host.fail_checkpoint = None
    assert (await snapshot(world, sandbox_id, name="tools")).status_code == 201


async def test_one_whose_answer_was_lost_is_swept_when_it_is_old(world: World) -> None:
    sandbox_id = await world.created()
    world.host.fail_checkpoint = (grpc.StatusCode.UNAVAILABLE, "restarting")
    assert (await snapshot(world, sandbox_id)).status_code == 503
    (begun,) = await world.store.builds.garbage(world.now() + timedelta(days=1))
    await world.services.reconciler.tidy()
    assert await world.store.builds.garbage(world.now() + timedelta(days=1)) == [begun]
    clock = world.services.snapshots._checkpoints._clock
    world.services.snapshots._checkpoints._clock = lambda: clock() + timedelta(hours=1)
    await world.services.reconciler.tidy()
    assert await world.store.builds.garbage(world.now() + timedelta(days=1)) == []


async def test_another_teams_snapshot_is_unknown(world: World) -> None:
    sandbox_id = await world.created()
    snapshot_id = await made(world, sandbox_id, name="tools")
    (node,) = world.services.nodes.all()
    await world.services.reconciler.check(node)
    async with await world.other_team() as other:
        assert (await other.get("/snapshots")).json() == []
        (build,) = world.host.builds.values()
        for reference in (snapshot_id, "tools", build.template_id):
            answer = await other.post("/v2/sandboxes", json={"templateID": reference})
            assert answer.status_code == 404
            deleted = await other.delete(f"/templates/{quote(reference, safe='')}")
            assert deleted.status_code == 404
        answer = await other.post(f"/sandboxes/{sandbox_id}/snapshots")
        assert answer.status_code == 404


async def test_a_name_in_the_same_namespace_of_another_team(world: World) -> None:
    sandbox_id = await world.created()
    await made(world, sandbox_id, name="tools")
    async with await world.other_team("Default") as other:
        created = await other.post("/v2/sandboxes", json={"templateID": "base"})
        path = f"/sandboxes/{created.json()['sandboxID']}/snapshots"
        answer = await other.post(path, json={"name": "tools"})
        assert answer.status_code == 400
        assert "belongs to another team" in answer.json()["message"]


async def test_pages_and_filters(world: World) -> None:
    one, two = await world.created(), await world.created()
    ids = [await made(world, sandbox_id, name=f"n{n}") for n, sandbox_id in enumerate([one] * 3)]
    unnamed = await made(world, two)
    assert await listed(world) == [unnamed, *ids[::-1]]
    assert await listed(world, sandboxID=one) == ids[::-1]
    assert await listed(world, sandboxID=two) == [unnamed]
    for name in ("n1", "default/n1", "n1:default"):
        assert await listed(world, name=name) == [ids[1]]
    assert await listed(world, name="nope") == []
    first = await world.http.get("/snapshots", params={"limit": 3})
    token = first.headers["x-next-token"]
    rest = await world.http.get("/snapshots", params={"limit": 3, "nextToken": token})
    assert "x-next-token" not in rest.headers
    found = [one["snapshotID"] for one in [*first.json(), *rest.json()]]
    assert found == [unnamed, *ids[::-1]]


@pytest.mark.parametrize("query", ["nextToken=x", "nextToken=eA==", "limit=0", "limit=101"])
async def test_wrong_values(world: World, query: str) -> None:
    assert (await world.http.get(f"/snapshots?{query}")).status_code == 400


async def test_delete(world: World) -> None:
    sandbox_id = await world.created()
    snapshot_id = await made(world, sandbox_id, name="tools")
    answer = await delete(world, snapshot_id)
    assert (answer.status_code, answer.content) == (204, b"")
    again = await delete(world, snapshot_id)
    assert again.json()["code"] == 404
    assert await listed(world) == []
    assert (await world.create(templateID=snapshot_id)).status_code == 404

    async def swept() -> bool:
        return not world.host.builds

    await eventually(swept)
    assert await made(world, sandbox_id, name="tools") == snapshot_id


@pytest.mark.parametrize("state", ["running", "paused"])
async def test_one_that_sandboxes_use_stays(world: World, state: str) -> None:
    origin = await world.created()
    snapshot_id = await made(world, origin)
    child = await world.created(templateID=snapshot_id)
    if state == "paused":
        await world.http.post(f"/sandboxes/{child}/pause")
    answer = await delete(world, snapshot_id)
    assert answer.json()["code"] == 400
    assert await listed(world) == [snapshot_id]
    await world.http.delete(f"/sandboxes/{child}")
    assert (await delete(world, snapshot_id)).status_code == 204


async def test_a_built_in_template_stays(world: World) -> None:
    await world.created()
    answer = await delete(world, "base")
    assert answer.status_code == 400
    assert "built in" in answer.json()["message"]
    assert (await delete(world, "unknown")).status_code == 404
    assert (await delete(world, "a b")).status_code == 400


@pytest.mark.parametrize("removed", [True, False])
async def test_a_create_that_a_deletion_overtook(
    world: World, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    async def not_yet(_build: object) -> None:
        pass

    checkpoints = world.services.snapshots._checkpoints
    if not removed:
        monkeypatch.setattr(checkpoints, "_remove", not_yet)
    sandbox_id = await world.created()
    snapshot_id = await made(world, sandbox_id)
    templates = world.services.templates
    resolve = templates.resolve

    async def resolve_and_be_overtaken(text: str, team: object) -> object:
        found = await resolve(text, team)  # type: ignore[arg-type]
        templates.resolve = resolve  # type: ignore[method-assign]
        assert (await delete(world, snapshot_id)).status_code == 204
        await checkpoints.sweep()
        return found

    templates.resolve = resolve_and_be_overtaken  # type: ignore[assignment, method-assign]
    answer = await world.create(templateID=snapshot_id)
    assert answer.status_code == 404
    assert len(world.host.sandboxes) == 1
    assert bool(world.host.builds) is not removed


async def test_a_host_that_is_away_is_swept_later(world: World) -> None:
    sandbox_id = await world.created()
    snapshot_id = await made(world, sandbox_id)
    await world.host.stop()
    assert (await delete(world, snapshot_id)).status_code == 204
    await world.host.start()

    async def swept() -> bool:
        await world.services.reconciler.tidy()
        return not world.host.builds

    await eventually(swept)


async def test_a_team_that_goes_leaves_nothing_on_its_hosts(world: World) -> None:
    sandbox_id = await world.created()
    await made(world, sandbox_id, name="tools")
    await world.http.delete(f"/sandboxes/{sandbox_id}")
    team = await world.store.teams.find("default")
    assert team is not None
    assert await world.store.teams.delete(team.team_id) == 0
    await world.services.reconciler.tidy()
    assert world.host.builds == {}
    assert await world.store.builds.garbage(world.now()) == []


async def test_snapshots_at_once_of_one_name(world: World) -> None:
    sandbox_id = await world.created()
    ids = await asyncio.gather(*(made(world, sandbox_id, name="tools") for _ in range(4)))
    assert len(set(ids)) == 1
    assert await listed(world) == [ids[0]]
    await world.services.reconciler.tidy()
    assert len(world.host.builds) == 1
