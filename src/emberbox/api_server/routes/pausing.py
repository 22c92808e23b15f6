"""Pause, connect, resume (protocol 2.4, 2.5)."""

from __future__ import annotations

from fastapi import Response

from emberbox.api_server.models import (
    ConnectRequest,
    PauseRequest,
    ResumeRequest,
    SandboxAnswer,
)
from emberbox.api_server.routes.dependencies import (
    Caller,
    Parts,
    SandboxId,
    authenticated_router,
)
from emberbox.api_server.routes.documenting import Responses, error_answers
from emberbox.api_server.validating import chosen_timeout

router = authenticated_router("sandboxes")

_ERRORS = error_answers(400, 404, 409, 429, 503, 504)
_CONNECTED: Responses = {
    200: {"description": "It was running"},
    201: {"model": SandboxAnswer, "description": "It was paused and has been resumed"},
    **_ERRORS,
}


@router.post(
    "/sandboxes/{sandbox_id}/pause",
    status_code=204,
    operation_id="pauseSandbox",
    response_class=Response,
    responses=error_answers(400, 404, 409, 503),
)
async def pause(
    sandbox_id: SandboxId, caller: Caller, parts: Parts, body: PauseRequest | None = None
) -> None:
    """Write a sandbox to disk and end its VM; it stays until it is resumed or killed.

    After any error it is as it was. 409: it is paused already.
    """
    asked = body or PauseRequest()
    await parts.pauser.pause(
        caller.team,
        sandbox_id,
        memory=asked.memory is not False,
        require_healthy_guest=bool(asked.require_healthy_guest),
    )


@router.post(
    "/v2/sandboxes/{sandbox_id}/connect",
    operation_id="connectSandboxV2",
    response_model_exclude_none=True,
    responses=_CONNECTED,
)
async def connect_v2(
    *,
    sandbox_id: SandboxId,
    caller: Caller,
    parts: Parts,
    response: Response,
    body: ConnectRequest | None = None,
) -> SandboxAnswer:
    """Take part in a sandbox. A running one lives at least as long as asked from now on; a
    paused one is resumed first."""
    return await _connect(sandbox_id, caller, parts, response, body)


@router.post(
    "/sandboxes/{sandbox_id}/connect",
    operation_id="connectSandbox",
    response_model_exclude_none=True,
    responses=_CONNECTED,
)
async def connect_v1(
    *,
    sandbox_id: SandboxId,
    caller: Caller,
    parts: Parts,
    response: Response,
    body: ConnectRequest | None = None,
) -> SandboxAnswer:
    """The same for SDKs up to 2.45."""
    return await _connect(sandbox_id, caller, parts, response, body)


@router.post(
    "/sandboxes/{sandbox_id}/resume",
    status_code=201,
    operation_id="resumeSandbox",
    response_model_exclude_none=True,
    responses=_ERRORS,
)
async def resume(
    sandbox_id: SandboxId, caller: Caller, parts: Parts, body: ResumeRequest | None = None
) -> SandboxAnswer:
    """Resume a paused sandbox (old SDKs). 409: it runs."""
    asked = body or ResumeRequest()
    default = parts.settings.default_timeout_v1
    seconds = chosen_timeout(asked.timeout, default, caller.team.limits)
    row = await parts.resumer.resume(caller.team, sandbox_id, seconds, asked.auto_pause)
    return parts.presenter.answer(row)


async def _connect(
    sandbox_id: str, caller: Caller, parts: Parts, response: Response, body: ConnectRequest | None
) -> SandboxAnswer:
    asked = body or ConnectRequest()
    default = parts.settings.default_timeout_v2
    seconds = chosen_timeout(asked.timeout, default, caller.team.limits)
    connected = await parts.resumer.connect(
        caller.team, sandbox_id, seconds, memory=asked.memory is not False
    )
    if connected.resumed:
        response.status_code = 201
    return parts.presenter.answer(connected.sandbox)
