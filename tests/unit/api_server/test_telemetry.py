"""Metrics and logs over REST: whose they are, what is asked of the host, in which form."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, Sandbox, SandboxNotFoundException
from e2b.connection_config import ApiParams

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb

if TYPE_CHECKING:
    from .harness import World

MOMENT = datetime(2026, 8, 21, 10, 0, 0, 250_000, tzinfo=UTC)
SECOND = int(MOMENT.timestamp())
UNKNOWN = "i00000000000000000000"


def sample(percent: float = 12.5) -> pb.SandboxMetric:
    return pb.SandboxMetric(
        at=MOMENT,
        cpu_count=2,
        cpu_used_percent=percent,
        mem_used=100 << 20,
        mem_total=512 << 20,
        mem_cache=1,
        disk_used=7 << 30,
        disk_total=10 << 30,
    )


def entry(message: str = "process 7 started", **fields: str) -> pb.LogEntry:
    return pb.LogEntry(at=MOMENT, level="info", logger="process", message=message, fields=fields)


async def test_metrics(world: World) -> None:
    sandbox_id = await world.created()
    world.host.samples[sandbox_id] = [sample(), sample(50)]
    answer = await world.http.get(f"/sandboxes/{sandbox_id}/metrics")
    assert answer.status_code == 200
    first, second = answer.json()
    assert first == {
        "timestamp": "2026-08-21T10:00:00.250000Z",
        "timestampUnix": SECOND,
        "cpuCount": 2,
        "cpuUsedPct": 12.5,
        "memUsed": 100 << 20,
        "memTotal": 512 << 20,
        "memCache": 1,
        "diskUsed": 7 << 30,
        "diskTotal": 10 << 30,
    }
    assert second["cpuUsedPct"] == 50


async def test_the_range_reaches_the_host(world: World) -> None:
    sandbox_id = await world.created()
    path = f"/sandboxes/{sandbox_id}/metrics"
    await world.http.get(path, params={"start": 0, "end": 5})
    await world.http.get(path)
    given, open_ended = world.host.asked
    assert given == pb.SandboxMetricsRequest(sandbox_id=sandbox_id, start=0, end=5)
    assert open_ended == pb.SandboxMetricsRequest(sandbox_id=sandbox_id)


async def test_no_sample_yet_is_an_empty_list(world: World) -> None:
    answer = await world.http.get(f"/sandboxes/{await world.created()}/metrics")
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("start=9&end=8", "start (9) is after end (8)"),
        ("start=x", "start"),
        ("end=-1", "end"),
        (f"start={1 << 70}", "start"),
        ("end=1.5", "end"),
    ],
)
async def test_a_range_that_cannot_be_meant(world: World, query: str, told: str) -> None:
    answer = await world.http.get(f"/sandboxes/{await world.created()}/metrics?{query}")
    assert answer.status_code == 400
    assert told in answer.json()["message"]


@pytest.mark.parametrize("path", ["sandboxes/{}/metrics", "sandboxes/{}/logs"])
async def test_of_an_unknown_and_of_another_teams_sandbox(world: World, path: str) -> None:
    sandbox_id = await world.created()
    world.host.samples[sandbox_id] = [sample()]
    world.host.logs[sandbox_id] = [entry()]
    async with await world.other_team() as other:
        for client, asked in ((other, sandbox_id), (world.http, UNKNOWN)):
            answer = await client.get("/" + path.format(asked))
            assert answer.status_code == 404
            assert answer.json() == {
                "code": 404,
                "message": f"Sandbox \"{asked}\" doesn't exist or you don't have access to it",
            }


async def test_metrics_of_several(world: World) -> None:
    first, second, silent = [await world.created() for _ in range(3)]
    world.host.samples |= {first: [sample(1), sample(2)], second: [sample(3)]}
    ids = f"{first},{second}-6532622b,{silent},{UNKNOWN},{first},,?"
    answer = await world.http.get("/sandboxes/metrics", params={"sandbox_ids": ids})
    assert answer.status_code == 200
    found = answer.json()["sandboxes"]
    assert {one: metric["cpuUsedPct"] for one, metric in found.items()} == {first: 2, second: 3}
    async with await world.other_team() as other:
        answer = await other.get("/sandboxes/metrics", params={"sandbox_ids": ids})
        assert answer.json() == {"sandboxes": {}}


async def test_metrics_of_too_many(world: World) -> None:
    ids = ",".join(f"i{number}" for number in range(101))
    answer = await world.http.get("/sandboxes/metrics", params={"sandbox_ids": ids})
    assert answer.status_code == 400
    assert "sandbox_ids: 101 ids, more than 100" in answer.json()["message"]
    assert (await world.http.get("/sandboxes/metrics")).status_code == 400


async def test_logs(world: World) -> None:
    sandbox_id = await world.created()
    world.host.logs[sandbox_id] = [entry(pid="7", level="a field of that name"), entry("later")]
    answer = await world.http.get(f"/sandboxes/{sandbox_id}/logs?start=5&limit=2000")
    assert answer.status_code == 200
    found = answer.json()
    assert [json.loads(log["line"]) for log in found["logs"]] == [
        {
            "pid": "7",
            "level": "info",
            "logger": "process",
            "message": "process 7 started",
        },
        {"level": "info", "logger": "process", "message": "later"},
    ]
    assert found["logEntries"][1] == {
        "timestamp": "2026-08-21T10:00:00.250000Z",
        "level": "info",
        "message": "later",
        "fields": {"logger": "process"},
    }
    assert found["logs"][0]["timestamp"] == "2026-08-21T10:00:00.250000Z"
    assert world.host.asked == [
        pb.SandboxLogsRequest(sandbox_id=sandbox_id, start_ms=5, limit=1000)
    ]


async def test_logs_v2(world: World) -> None:
    sandbox_id = await world.created()
    world.host.logs[sandbox_id] = [entry()]
    path = f"/v2/sandboxes/{sandbox_id}/logs"
    query: dict[str, str | int] = {
        "cursor": 7,
        "direction": "backward",
        "level": "warn",
        "search": "x",
        "limit": 3,
    }
    answer = await world.http.get(path, params=query)
    assert [one["message"] for one in answer.json()["logs"]] == ["process 7 started"]
    await world.http.get(path, params={"cursor": 7})
    backward, forward = world.host.asked
    assert backward == pb.SandboxLogsRequest(
        sandbox_id=sandbox_id, end_ms=7, newest_first=True, level="warn", search="x", limit=3
    )
    assert forward == pb.SandboxLogsRequest(sandbox_id=sandbox_id, start_ms=7, limit=1000)


@pytest.mark.parametrize(
    "query",
    ["limit=1001", "limit=-1", "direction=up", "level=loud", "cursor=-1", "search=" + "x" * 257],
)
async def test_logs_that_cannot_be_meant(world: World, query: str) -> None:
    answer = await world.http.get(f"/v2/sandboxes/{await world.created()}/logs?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["message"]


async def test_logs_stay_after_the_end_as_long_as_the_host_has_them(world: World) -> None:
    sandbox_id = await world.created()
    world.host.logs[sandbox_id] = [entry()]
    await world.http.delete(f"/sandboxes/{sandbox_id}")
    await world.becomes(sandbox_id, "killed")
    answer = await world.http.get(f"/sandboxes/{sandbox_id}/logs")
    assert [one["message"] for one in answer.json()["logEntries"]] == ["process 7 started"]
    assert (await world.http.get(f"/sandboxes/{sandbox_id}/metrics")).status_code == 404
    del world.host.logs[sandbox_id]
    for version in ("", "/v2"):
        answer = await world.http.get(f"{version}/sandboxes/{sandbox_id}/logs")
        assert answer.status_code == 404


async def test_a_host_that_does_not_answer(world: World) -> None:
    sandbox_id = await world.created()
    await world.host.stop()
    for path in (
        f"/sandboxes/{sandbox_id}/metrics",
        f"/sandboxes/{sandbox_id}/logs",
        f"/sandboxes/metrics?sandbox_ids={sandbox_id}",
    ):
        answer = await world.http.get(path)
        assert answer.status_code == 503
        assert answer.json()["error_code"] == "sandbox_node_unavailable"


async def test_the_official_sdk_reads_them(world: World) -> None:
    options = ApiParams(api_key=world.key, api_url=world.url, domain="sandboxes.example")
    sandbox_id = await world.created()
    world.host.samples[sandbox_id] = [sample()]
    (found,) = await asyncio.to_thread(
        lambda: Sandbox.get_metrics(sandbox_id, MOMENT, MOMENT, **options)
    )
    assert (found.cpu_count, found.cpu_used_pct, found.timestamp) == (2, 12.5, MOMENT)
    assert world.host.asked == [
        pb.SandboxMetricsRequest(sandbox_id=sandbox_id, start=SECOND, end=SECOND)
    ]
    (again,) = await AsyncSandbox.get_metrics(sandbox_id, **options)
    assert again == found
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.get_metrics(UNKNOWN, **options)
