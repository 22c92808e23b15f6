"""One sandbox: look, extend, shorten, kill."""

from __future__ import annotations

from fastapi import Response

from emberbox.api_server.checking_networks import check_egress
from emberbox.api_server.models import (
    NetworkUpdate,
    RefreshRequest,
    SandboxDetail,
    TimeoutRequest,
)
from emberbox.api_server.routes.dependencies import (
    Caller,
    Parts,
    SandboxId,
    authenticated_router,
)
from emberbox.api_server.routes.documenting import error_answers
from emberbox.api_server.validating import capped_timeout

router = authenticated_router("sandboxes")

_SHORTEST_REFRESH = 15
_ERRORS = error_answers(400, 404, 503)


@router.get(
    "/sandboxes/{sandbox_id}",
    operation_id="getSandbox",
    response_model_exclude_none=True,
    responses=_ERRORS,
)
async def get_sandbox(sandbox_id: SandboxId, caller: Caller, parts: Parts) -> SandboxDetail:
    """A sandbox, running or paused."""
    return parts.presenter.detail(await parts.living.get(caller.team, sandbox_id))


@router.delete(
    "/sandboxes/{sandbox_id}",
    status_code=204,
    operation_id="deleteSandbox",
    response_class=Response,
    responses=_ERRORS,
)
async def kill_sandbox(sandbox_id: SandboxId, caller: Caller, parts: Parts) -> None:
    """End a sandbox, running or paused; answers when nothing of it is left."""
    await parts.living.kill(caller.team, sandbox_id)


@router.post(
    "/sandboxes/{sandbox_id}/timeout",
    status_code=204,
    operation_id="setSandboxTimeout",
    response_class=Response,
    responses=_ERRORS,
)
async def set_timeout(
    sandbox_id: SandboxId, body: TimeoutRequest, caller: Caller, parts: Parts
) -> None:
    """Let it end so many seconds from now: sooner or later than before."""
    seconds = capped_timeout(body.timeout, caller.team.limits)
    await parts.living.set_timeout(caller.team, sandbox_id, seconds)


@router.put(
    "/sandboxes/{sandbox_id}/network",
    status_code=204,
    operation_id="updateSandboxNetwork",
    response_class=Response,
    responses=error_answers(400, 404, 409, 501, 503),
)
async def update_network(
    sandbox_id: SandboxId, body: NetworkUpdate, caller: Caller, parts: Parts
) -> None:
    """Replace what it may reach, in one step; open connections are held to it within a second."""
    check_egress(body)
    await parts.living.update_network(caller.team, sandbox_id, body)


@router.post(
    "/sandboxes/{sandbox_id}/refreshes",
    status_code=204,
    operation_id="refreshSandbox",
    response_class=Response,
    responses=_ERRORS,
)
async def refresh(
    sandbox_id: SandboxId, caller: Caller, parts: Parts, body: RefreshRequest | None = None
) -> None:
    """Extend its life (old SDKs)."""
    asked = body.duration if body is not None and body.duration is not None else 0
    seconds = capped_timeout(max(asked, _SHORTEST_REFRESH), caller.team.limits)
    await parts.living.extend(caller.team, sandbox_id, seconds)
