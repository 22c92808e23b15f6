"""Snapshots and forks (protocol 2.5)."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import Query, Response
from pydantic import BeforeValidator

from emberbox.api_server.errors import BadRequestError
from emberbox.api_server.models import (
    ForkRequest,
    SandboxForkResult,
    SnapshotInfo,
    SnapshotRequest,
)
from emberbox.api_server.routes.dependencies import (
    Caller,
    Parts,
    SandboxId,
    authenticated_router,
)
from emberbox.api_server.routes.documenting import NEXT_TOKEN, error_answers
from emberbox.api_server.validating import chosen_timeout

router = authenticated_router("snapshots")

_MOST = 100
_MOST_CHILDREN = 100

TemplateId = Annotated[str, BeforeValidator(unquote)]
"""In a path segment, where `/` and `:` of a name are encoded."""


@router.post(
    "/sandboxes/{sandbox_id}/snapshots",
    status_code=201,
    operation_id="createSnapshot",
    responses=error_answers(400, 404, 409, 503),
)
async def create_snapshot(
    sandbox_id: SandboxId, caller: Caller, parts: Parts, body: SnapshotRequest | None = None
) -> SnapshotInfo:
    """Keep a running sandbox as it is now, as a template; it runs on."""
    asked = body or SnapshotRequest()
    made = await parts.snapshots.create(
        caller.team, sandbox_id, name=asked.name, memory=asked.memory is not False
    )
    return SnapshotInfo(snapshot_id=made.snapshot_id, names=made.names)


@router.get("/snapshots", operation_id="listSnapshots", responses=NEXT_TOKEN | error_answers(400))
async def list_snapshots(
    *,
    response: Response,
    caller: Caller,
    parts: Parts,
    sandbox_id: Annotated[str | None, Query(alias="sandboxID")] = None,
    name: str | None = None,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    next_token: Annotated[str | None, Query(alias="nextToken")] = None,
) -> list[SnapshotInfo]:
    """A page of a team's snapshots, newest first."""
    found, following = await parts.snapshots.page(
        caller.team, limit=limit, next_token=next_token, sandbox_id=sandbox_id, name=name
    )
    if following is not None:
        response.headers["x-next-token"] = following
    return [SnapshotInfo(snapshot_id=one.snapshot_id, names=one.names) for one in found]


@router.delete(
    "/templates/{template_id}",
    status_code=204,
    operation_id="deleteTemplate",
    response_class=Response,
    responses=error_answers(400, 404),
)
async def delete_template(template_id: TemplateId, caller: Caller, parts: Parts) -> None:
    """Delete a snapshot, by its id. 400: sandboxes use it."""
    await parts.snapshots.delete(caller.team, template_id)


@router.post(
    "/sandboxes/{sandbox_id}/fork",
    status_code=201,
    operation_id="forkSandbox",
    response_model_exclude_none=True,
    responses=error_answers(400, 404, 409, 503),
)
async def fork(
    sandbox_id: SandboxId, caller: Caller, parts: Parts, body: ForkRequest | None = None
) -> list[SandboxForkResult]:
    """Start sandboxes that go on from where a running one is. Each succeeds or fails alone."""
    asked = body or ForkRequest()
    count = 1 if asked.count is None else asked.count
    if not 1 <= count <= _MOST_CHILDREN:
        raise BadRequestError(f"count must be between 1 and {_MOST_CHILDREN}")
    default = parts.settings.default_timeout_v1
    seconds = chosen_timeout(asked.timeout, default, caller.team.limits)
    children = await parts.forker.fork(caller.team, sandbox_id, seconds, count)
    return [parts.presenter.fork_result(child) for child in children]
