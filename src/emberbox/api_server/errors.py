"""Errors of the API server; each knows the HTTP answer that it becomes.

ApiError
├── BadRequestError            400  a value is wrong; the message names it
├── UnauthorizedError          401
├── SandboxNotFoundError       404  (also: it belongs to another team)
├── TemplateNotFoundError      404
├── SandboxNotRunningError     404  it is paused
├── ConflictError              409  it is changing state, or is in the wrong one
│   └── AlreadyPausedError
├── IdempotencyKeyReusedError  422
├── QuotaExceededError         429
├── CreateFailedError          500  the host tried and the VM failed
├── SnapshotFailedError        500  the host could not write it to disk; it runs on
├── NotAvailableYetError       501
├── NoCapacityError            503  no host would take it; nothing was made
├── NodeUnavailableError       503  the host of a sandbox does not answer
└── PlacementTimeoutError      504  the host did not answer in time; what was made is cleaned up
NodeError                 a call to an orchestrator failed (no HTTP answer of its own)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.shared.errors import EmberboxError

if TYPE_CHECKING:
    import grpc

_NO_RETRY = {"Should-Retry": "false"}
_RETRY_AFTER = 1
"""Seconds, where nobody knows when there will be room: sandboxes come and go."""


class ApiError(EmberboxError):
    """An answer in the protocol's form: `{"code", "message", "error_code"?}`."""

    status = 500

    def __init__(
        self,
        message: str,
        *,
        error_code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code
        self.headers = headers or {}


class BadRequestError(ApiError):
    """A value of the request is wrong."""

    status = 400


class UnauthorizedError(ApiError):
    """The API key is missing, malformed, unknown or revoked."""

    status = 401


class SandboxNotFoundError(ApiError):
    """No such live sandbox in this team (text of the protocol, 2.4)."""

    status = 404

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"Sandbox \"{sandbox_id}\" doesn't exist or you don't have access to it")
        self.sandbox_id = sandbox_id


class TemplateNotFoundError(ApiError):
    """No template has this name or id, or it lacks the tag (texts of the protocol, 2.3)."""

    status = 404

    def __init__(self, name: str, tag: str | None = None) -> None:
        super().__init__(
            f"template '{name}' not found"
            if tag is None
            else f"tag '{tag}' does not exist for template '{name}'"
        )
        self.name = name
        self.tag = tag


class SandboxNotRunningError(ApiError):
    """It is there, and what was asked for needs it running."""

    status = 404

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f'Sandbox "{sandbox_id}" is not running: connect to it first')
        self.sandbox_id = sandbox_id


class ConflictError(ApiError):
    """The sandbox is changing state, or is in the wrong one."""

    status = 409


class AlreadyPausedError(ConflictError):
    """Nothing is left to pause (text of the protocol, 2.5)."""

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"Error pausing sandbox - sandbox '{sandbox_id}' is already paused")


class IdempotencyKeyReusedError(ApiError):
    """The key was given before with another request."""

    status = 422

    def __init__(self) -> None:
        super().__init__(
            "Idempotency-Key was already used for a different request: use a new one",
            error_code="idempotency_key_reused",
        )


class QuotaExceededError(ApiError):
    """The team is at one of its limits."""

    status = 429

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code="quota_exceeded")


class CreateFailedError(ApiError):
    """A host tried to start the sandbox and could not. Retrying at once would not help."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(
            f"Failed to place sandbox: {node}: {reason}",
            error_code="sandbox_create_failed",
            headers=_NO_RETRY,
        )


class SnapshotFailedError(ApiError):
    """A host tried to write a sandbox to disk and could not; the sandbox runs on."""

    def __init__(self, doing: str, node: str, reason: str) -> None:
        super().__init__(f"Failed to {doing}: {node}: {reason}", headers=_NO_RETRY)


class NotAvailableYetError(ApiError):
    """Part of the protocol that Emberbox does not offer yet."""

    status = 501

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: not available in Emberbox yet (see docs/compatibility.md)",
            error_code="not_implemented",
        )
        self.what = what


class NoCapacityError(ApiError):
    """No host would take the sandbox; nothing was made, so trying again is safe.

    `retry_after`: whole seconds after which there may be room.
    """

    status = 503

    def __init__(self, refusals: list[tuple[str, str]], retry_after: int | None = None) -> None:
        reasons = "; ".join(f"{node}: {reason}" for node, reason in refusals)
        super().__init__(
            f"Failed to place sandbox: {reasons or 'no host is configured'}",
            error_code="sandbox_capacity_unavailable",
            headers={"Retry-After": str(retry_after or _RETRY_AFTER)},
        )
        self.refusals = refusals


class NodeUnavailableError(ApiError):
    """The host of a sandbox does not answer, so what was asked did not happen or is unknown."""

    status = 503

    def __init__(self, doing: str, node: str, reason: str) -> None:
        super().__init__(
            f"Failed to {doing}: {node}: {reason}", error_code="sandbox_node_unavailable"
        )


class PlacementTimeoutError(ApiError):
    """Whether the sandbox started is unknown; it is being cleaned up, so no blind retry."""

    status = 504

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(
            f"Failed to place sandbox: {node}: {reason}",
            error_code="sandbox_placement_timeout",
            headers=_NO_RETRY,
        )


class NodeError(EmberboxError):
    """A call to an orchestrator failed.

    `sent` is False when the request certainly never left this process. `retry_after`: seconds
    after which a node that is full may have room, when it said so.
    """

    def __init__(
        self,
        node: str,
        code: grpc.StatusCode,
        reason: str,
        *,
        sent: bool,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{node}: {code.name}: {reason}")
        self.retry_after = retry_after
        self.node = node
        self.code = code
        self.reason = reason
        self.sent = sent
