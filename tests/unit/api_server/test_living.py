"""Get, kill, timeout, refreshes, connect."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from emberbox.shared.protocol import CLIENT_ID

from .standin import BASE_ID

if TYPE_CHECKING:
    from datetime import datetime

    from .harness import World


async def deadline(world: World, sandbox_id: str) -> datetime:
    """The end in the record, which must be the host's."""
    row = await world.row(sandbox_id)
    told = world.host.sandboxes[sandbox_id].end_time.ToDatetime(row.end_at.tzinfo)
    assert told == row.end_at
    return row.end_at


def about(moment: datetime, world: World, seconds: float) -> bool:
    expected = world.now() + timedelta(seconds=seconds)
    return abs((moment - expected).total_seconds()) < 5


async def test_detail_at_once_after_create(world: World) -> None:
    created = (await world.create(metadata={"k": "v"}, timeout=60)).json()
    answer = await world.http.get(f"/sandboxes/{created['sandboxID']}")
    assert answer.status_code == 200
    body = answer.json()
    started, ended = body.pop("startedAt"), body.pop("endAt")
    assert started < ended
    assert started.endswith("Z")
    assert body == {
        "templateID": BASE_ID,
        "sandboxID": created["sandboxID"],
        "clientID": CLIENT_ID,
        "envdVersion": created["envdVersion"],
        "envdAccessToken": created["envdAccessToken"],
        "alias": "base",
        "cpuCount": 2,
        "memoryMB": 512,
        "diskSizeMB": 1024,
        "state": "running",
        "metadata": {"k": "v"},
        "network": {"allowPublicTraffic": True},
        "lifecycle": {"autoResume": False, "onTimeout": "kill"},
    }


async def test_ids_of_old_clients(world: World) -> None:
    sandbox_id = await world.created()
    answer = await world.http.get(f"/sandboxes/{sandbox_id}-{CLIENT_ID}")
    assert answer.json()["sandboxID"] == sandbox_id
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}-{CLIENT_ID}")).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/timeout"),
        ("POST", "/refreshes"),
        ("POST", "/connect"),
    ],
)
@pytest.mark.parametrize("sandbox_id", ["inotthere", "a%2Fb", "%F0%9F%98%80", "UPPER"])
async def test_unknown_sandboxes(world: World, method: str, path: str, sandbox_id: str) -> None:
    answer = await world.http.request(
        method, f"/sandboxes/{sandbox_id}{path}", json={"timeout": 10}
    )
    assert answer.status_code == 404
    assert answer.json()["code"] == 404
    assert "doesn't exist or you don't have access to it" in answer.json()["message"]


async def test_another_teams_sandbox_is_unknown(world: World) -> None:
    sandbox_id = await world.created()
    async with await world.other_team() as other:
        assert (await other.get(f"/sandboxes/{sandbox_id}")).status_code == 404
        assert (await other.delete(f"/sandboxes/{sandbox_id}")).status_code == 404
        assert (await other.get("/v2/sandboxes")).json() == []
        answer = await other.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": 1})
        assert answer.status_code == 404
    assert sandbox_id in world.host.sandboxes


async def test_kill(world: World) -> None:
    sandbox_id = await world.created()
    answer = await world.http.delete(f"/sandboxes/{sandbox_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert world.host.sandboxes == {}
    assert (await world.row(sandbox_id)).state == "killed"
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 404
    assert (await world.http.get(f"/sandboxes/{sandbox_id}")).status_code == 404


async def test_two_kills_at_once_join(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    world.host.hold_delete = asyncio.Event()
    kills = [asyncio.create_task(world.http.delete(f"/sandboxes/{sandbox_id}")) for _ in range(3)]
    await world.becomes(sandbox_id, "killing")
    world.host.hold_delete.set()
    assert {(await kill).status_code for kill in kills} <= {204, 404}
    assert 204 in {kill.result().status_code for kill in kills}
    assert world.host.deleted == [sandbox_id]


async def test_timeout_may_shorten(world: World) -> None:
    sandbox_id = await world.created(timeout=300)
    answer = await world.http.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": 20})
    assert (answer.status_code, answer.content) == (204, b"")
    assert about(await deadline(world, sandbox_id), world, 20)


async def test_a_negative_timeout_is_now(world: World) -> None:
    sandbox_id = await world.created()
    answer = await world.http.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": -5})
    assert answer.status_code == 204
    assert about(await deadline(world, sandbox_id), world, 0)


async def test_timeout_above_the_maximum(world: World) -> None:
    sandbox_id = await world.created()
    await world.limit(max_length_hours=2)
    answer = await world.http.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": 7201})
    assert answer.json() == {"code": 400, "message": "Timeout cannot be greater than 2 hours"}


async def test_a_timeout_that_the_host_no_longer_knows(world: World) -> None:
    sandbox_id = await world.created()
    world.host.sandboxes.clear()
    answer = await world.http.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": 20})
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["/sandboxes/{}/connect", "/v2/sandboxes/{}/connect"])
async def test_connect_never_shortens_and_gives_the_same_tokens(world: World, path: str) -> None:
    created = (await world.create(timeout=600)).json()
    sandbox_id = created["sandboxID"]
    answer = await world.http.post(path.format(sandbox_id), json={"timeout": 10})
    assert answer.status_code == 200
    assert answer.json() == created
    assert about(await deadline(world, sandbox_id), world, 600)
    await world.http.post(path.format(sandbox_id), json={"timeout": 900})
    assert about(await deadline(world, sandbox_id), world, 900)


async def test_connect_without_a_body_extends_to_the_default(world: World) -> None:
    sandbox_id = await world.created(timeout=10)
    assert (await world.http.post(f"/v2/sandboxes/{sandbox_id}/connect")).status_code == 200
    assert about(await deadline(world, sandbox_id), world, 300)


async def test_connects_at_once_do_not_undo_one_another(world: World) -> None:
    sandbox_id = await world.created(timeout=10)
    path = f"/v2/sandboxes/{sandbox_id}/connect"
    await asyncio.gather(
        *(world.http.post(path, json={"timeout": seconds}) for seconds in (20, 900, 30, 400))
    )
    assert about(await deadline(world, sandbox_id), world, 900)


async def test_refreshes_only_extend(world: World) -> None:
    sandbox_id = await world.created(timeout=100)
    path = f"/sandboxes/{sandbox_id}/refreshes"
    assert (await world.http.post(path)).status_code == 204
    assert about(await deadline(world, sandbox_id), world, 100)
    assert (await world.http.post(path, json={"duration": 500})).status_code == 204
    assert about(await deadline(world, sandbox_id), world, 500)
