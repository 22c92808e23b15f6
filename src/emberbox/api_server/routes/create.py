"""Create, both generations."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from emberbox.api_server.models import NewSandbox, NewSandboxV2, SandboxAnswer
from emberbox.api_server.routes.dependencies import Caller, Parts, authenticated_router
from emberbox.api_server.routes.documenting import SERVER_TIMING, error_answers
from emberbox.api_server.routes.timing import Timed
from emberbox.api_server.validating import wanted_sandbox
from emberbox.api_server.wanted import WantedSandbox

router = authenticated_router("sandboxes")

_ANSWERS = SERVER_TIMING | error_answers(400, 404, 409, 422, 429, 501, 503, 504)

IdempotencyKey = Annotated[str | None, Header(description="1-255 characters of [a-z0-9-]")]


@router.post(
    "/v2/sandboxes",
    status_code=201,
    operation_id="createSandboxV2",
    response_model_exclude_none=True,
    responses=_ANSWERS,
)
async def create_v2(
    *,
    body: NewSandboxV2,
    caller: Caller,
    parts: Parts,
    timed: Timed,
    idempotency_key: IdempotencyKey = None,
) -> SandboxAnswer:
    """Start a sandbox; it is always secured by an access token."""
    default = parts.settings.default_timeout_v2
    wanted = wanted_sandbox(body, caller.team.limits, default, idempotency_key)
    return await _create(wanted, caller, parts, timed)


@router.post(
    "/sandboxes",
    status_code=201,
    operation_id="createSandbox",
    response_model_exclude_none=True,
    responses=_ANSWERS,
)
async def create_v1(
    *,
    body: NewSandbox,
    caller: Caller,
    parts: Parts,
    timed: Timed,
    idempotency_key: IdempotencyKey = None,
) -> SandboxAnswer:
    """Start a sandbox (SDKs up to 2.45)."""
    default = parts.settings.default_timeout_v1
    wanted = wanted_sandbox(body, caller.team.limits, default, idempotency_key)
    return await _create(wanted, caller, parts, timed)


async def _create(
    wanted: WantedSandbox, caller: Caller, parts: Parts, timed: Timed
) -> SandboxAnswer:
    row = await parts.creator.create(caller.team, wanted, timed.steps)
    timed.finish(row.sandbox_id)
    return parts.presenter.answer(row)
