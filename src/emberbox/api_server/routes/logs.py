"""What happened to and in a sandbox (protocol 2.10)."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Annotated, Literal, cast

from fastapi import Query

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.models import (
    LogLevel,
    SandboxLog,
    SandboxLogEntry,
    SandboxLogs,
    SandboxLogsV2,
)
from emberbox.api_server.routes.dependencies import (
    Caller,
    Parts,
    SandboxId,
    authenticated_router,
)
from emberbox.api_server.routes.documenting import error_answers

router = authenticated_router("sandboxes")

_MOST = 1000
_LATEST_MILLISECOND = 253_402_300_799_999
"""The end of the year 9999."""
_ERRORS = error_answers(400, 404, 503)

Millisecond = Annotated[
    int | None, Query(ge=0, le=_LATEST_MILLISECOND, description="unix milliseconds")
]


@router.get("/sandboxes/{sandbox_id}/logs", operation_id="getSandboxLogs", responses=_ERRORS)
async def logs_v1(
    sandbox_id: SandboxId,
    caller: Caller,
    parts: Parts,
    start: Millisecond = None,
    limit: Annotated[int, Query(ge=0, description="above 1000 is 1000")] = _MOST,
) -> SandboxLogs:
    """Entries from `start` on, oldest first; also of a sandbox that ended lately."""
    request = pb.SandboxLogsRequest(sandbox_id=sandbox_id, start_ms=start, limit=min(limit, _MOST))
    entries = await parts.telemetry.logs(caller.team, request)
    return SandboxLogs(logs=list(map(_log, entries)), log_entries=list(map(_entry, entries)))


@router.get("/v2/sandboxes/{sandbox_id}/logs", operation_id="getSandboxLogsV2", responses=_ERRORS)
async def logs_v2(
    *,
    sandbox_id: SandboxId,
    caller: Caller,
    parts: Parts,
    cursor: Millisecond = None,
    limit: Annotated[int, Query(ge=0, le=_MOST)] = _MOST,
    direction: Literal["forward", "backward"] = "forward",
    level: Annotated[LogLevel | None, Query(description="this and worse")] = None,
    search: Annotated[str | None, Query(max_length=256, description="case-sensitive")] = None,
) -> SandboxLogsV2:
    """Entries from `cursor` on: later ones, or backward, newest first."""
    backward = direction == "backward"
    request = pb.SandboxLogsRequest(
        sandbox_id=sandbox_id,
        start_ms=None if backward else cursor,
        end_ms=cursor if backward else None,
        limit=limit,
        newest_first=backward,
        level=level or "",
        search=search or "",
    )
    entries = await parts.telemetry.logs(caller.team, request)
    return SandboxLogsV2(logs=list(map(_entry, entries)))


def _log(entry: pb.LogEntry) -> SandboxLog:
    # The fields first, so that none of them takes the place of what clients read.
    line = {
        **entry.fields,
        "level": entry.level,
        "logger": entry.logger,
        "message": entry.message,
    }
    return SandboxLog(timestamp=entry.at.ToDatetime(UTC), line=json.dumps(line))


def _entry(entry: pb.LogEntry) -> SandboxLogEntry:
    return SandboxLogEntry(
        timestamp=entry.at.ToDatetime(UTC),
        level=cast("LogLevel", entry.level),
        message=entry.message,
        fields={**entry.fields, "logger": entry.logger},
    )
