"""What sandboxes use (protocol 2.10)."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated

from fastapi import Query

from emberbox.api_server.errors import BadRequestError
from emberbox.api_server.models import SandboxesWithMetrics, SandboxMetric
from emberbox.api_server.routes.dependencies import (
    Caller,
    Parts,
    SandboxId,
    authenticated_router,
)
from emberbox.api_server.routes.documenting import error_answers
from emberbox.shared.ids import short_sandbox_id
from emberbox.shared.lists import parts_of

if TYPE_CHECKING:
    from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb

router = authenticated_router("sandboxes")

_MOST_SANDBOXES = 100
_LATEST_SECOND = 253_402_300_799
"""The end of the year 9999."""

Second = Annotated[int | None, Query(ge=0, le=_LATEST_SECOND, description="unix seconds")]


@router.get(
    "/sandboxes/metrics", operation_id="listSandboxesMetrics", responses=error_answers(400, 503)
)
async def latest_metrics(
    sandbox_ids: Annotated[str, Query(description="ids with commas between them, 100 at most")],
    caller: Caller,
    parts: Parts,
) -> SandboxesWithMetrics:
    """The newest sample of each of these; without those that have none or are not there."""
    latest = await parts.telemetry.latest(caller.team, _ids(sandbox_ids))
    return SandboxesWithMetrics(sandboxes={one: _metric(found) for one, found in latest.items()})


@router.get(
    "/sandboxes/{sandbox_id}/metrics",
    operation_id="getSandboxMetrics",
    responses=error_answers(400, 404, 503),
)
async def sandbox_metrics(
    sandbox_id: SandboxId, caller: Caller, parts: Parts, start: Second = None, end: Second = None
) -> list[SandboxMetric]:
    """What a sandbox has used, oldest first: 1000 samples at most, thinned out evenly."""
    if start is not None and end is not None and start > end:
        raise BadRequestError(f"start ({start}) is after end ({end})")
    samples = await parts.telemetry.metrics(caller.team, sandbox_id, start, end)
    return [_metric(sample) for sample in samples]


def _ids(text: str) -> list[str]:
    asked = dict.fromkeys(parts_of(text))
    if len(asked) > _MOST_SANDBOXES:
        raise BadRequestError(f"sandbox_ids: {len(asked)} ids, more than {_MOST_SANDBOXES}")
    # What cannot be an id is as unknown as any other that is not there.
    short = (short_sandbox_id(one) for one in asked)
    return list(dict.fromkeys(one for one in short if one is not None))


def _metric(sample: pb.SandboxMetric) -> SandboxMetric:
    return SandboxMetric(
        timestamp=sample.at.ToDatetime(UTC),
        timestamp_unix=sample.at.seconds,
        cpu_count=sample.cpu_count,
        cpu_used_pct=sample.cpu_used_percent,
        mem_used=sample.mem_used,
        mem_total=sample.mem_total,
        mem_cache=sample.mem_cache,
        disk_used=sample.disk_used,
        disk_total=sample.disk_total,
    )
