"""What a sandbox used, in both flavours and both forms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

import emberbox
from emberbox import SandboxMetrics

from .conftest import SANDBOX, Flavour
from .stand_in import StandIn, reply

ID = SANDBOX["sandboxID"]
PATH = f"/sandboxes/{ID}/metrics"
SAMPLE = {
    "timestamp": "2026-08-21T10:00:00Z",
    "timestampUnix": 1787306400,
    "cpuCount": 2,
    "cpuUsedPct": 12.5,
    "memUsed": 1,
    "memTotal": 2,
    "memCache": 3,
    "diskUsed": 4,
    "diskTotal": 5,
}


async def test_samples(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", PATH, reply(200, [SAMPLE, {**SAMPLE, "cpuUsedPct": 100}]))
    samples = await sdk.do(sandbox.get_metrics)
    assert samples == await sdk.do(sdk.Sandbox.get_metrics, ID)
    assert samples[0] == SandboxMetrics(
        cpu_count=2,
        cpu_used_pct=12.5,
        disk_total=5,
        disk_used=4,
        mem_total=2,
        mem_used=1,
        mem_cache=3,
        timestamp=datetime(2026, 8, 21, 10, tzinfo=UTC),
    )
    assert samples[1].cpu_used_pct == 100
    assert [request.query for request in server.sent(PATH)] == [{}, {}]


async def test_a_range_is_sent_in_whole_seconds_that_hold_it(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("GET", PATH, reply(200, []))
    start, end = (datetime.fromtimestamp(seconds, UTC) for seconds in (1000.6, 2000.4))
    assert await sdk.do(sandbox.get_metrics, start, end) == []
    await sdk.do(sdk.Sandbox.get_metrics, ID, end=end.replace(microsecond=0).astimezone())
    await sdk.do(sandbox.get_metrics, start=start.astimezone().replace(tzinfo=None))
    assert [request.query for request in server.sent(PATH)] == [
        {"start": "1000", "end": "2001"},
        {"end": "2000"},
        {"start": "1000"},
    ]


async def test_metrics_of_nothing(sdk: Flavour, server: StandIn) -> None:
    with pytest.raises(emberbox.SandboxNotFoundException, match="other"):
        await sdk.do(sdk.Sandbox.get_metrics, "other")
