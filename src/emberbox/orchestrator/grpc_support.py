"""What all gRPC services of this program share: errors as statuses."""

from __future__ import annotations

import errno
import functools
import math
import sqlite3
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import structlog

from emberbox.orchestrator import metrics
from emberbox.orchestrator.errors import (
    AdmissionRefused,
    BadRequest,
    BuildInUse,
    GuestUnhealthy,
    MachineError,
    OrchestratorError,
    RunConflict,
    SandboxMissing,
    TemplateMissing,
)
from emberbox.orchestrator.network.errors import NoFreeSlotError
from emberbox.shared import correlation, tracing
from emberbox.shared.errors import EmberboxError
from emberbox.shared.protocol import GRPC_REQUEST_ID_KEY, GRPC_RETRY_AFTER_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

_log = structlog.get_logger(__name__)

_STATUS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (AdmissionRefused, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NoFreeSlotError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (GuestUnhealthy, grpc.StatusCode.FAILED_PRECONDITION),
    (BuildInUse, grpc.StatusCode.FAILED_PRECONDITION),
    (TemplateMissing, grpc.StatusCode.NOT_FOUND),
    (SandboxMissing, grpc.StatusCode.NOT_FOUND),
    (RunConflict, grpc.StatusCode.ALREADY_EXISTS),
)

_MESSAGE_LENGTH = 1500

S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")

Context = grpc.aio.ServicerContext[Any, Any]


def answering(
    method: Callable[[S, Q, Context], Awaitable[R]],
) -> Callable[[S, Q, Context], Awaitable[R]]:
    """Turn what the method raises into a gRPC status with the reason as its message; log, time
    and trace the call as part of the request that it belongs to."""
    name = method.__name__

    @functools.wraps(method)
    async def answer(self: S, request: Q, context: Context) -> R:
        metadata = tuple(context.invocation_metadata() or ())
        _bind(metadata, request)
        began, status = time.perf_counter(), grpc.StatusCode.UNKNOWN
        try:
            with tracing.continued(f"orchestrator {name}", metadata):
                result = await method(self, request, context)
            status = grpc.StatusCode.OK
            return result
        except OrchestratorError as error:
            status = _status_of(error)
            message = error.explain() if isinstance(error, MachineError) else str(error)
            _log.info("call refused", method=name, code=status.name, reason=message)
            await context.abort(status, _bounded(message), _more(error))
        except (EmberboxError, OSError, sqlite3.Error) as error:
            status = grpc.StatusCode.INTERNAL
            _log.exception("call failed", method=name)
            await context.abort(status, _bounded(_told(error)))
        finally:
            metrics.observe_call(name, status.name, time.perf_counter() - began)
        raise AssertionError("abort raises")

    return answer


def _bind(metadata: Iterable[tuple[str, str | bytes]], request: object) -> None:
    """All that is logged from here on names the request and the sandbox that it is about."""
    presented = dict(metadata).get(GRPC_REQUEST_ID_KEY)
    request_id = "" if presented is None else correlation.request_id_from(presented)
    about = getattr(request, "sandbox", request)
    sandbox_id = getattr(about, "sandbox_id", "")
    correlation.bind(request_id=request_id, sandbox_id=sandbox_id)


def _more(error: OrchestratorError) -> tuple[tuple[str, str], ...]:
    """What is told besides, as trailing metadata."""
    after = error.retry_after if isinstance(error, AdmissionRefused) else None
    return () if after is None else ((GRPC_RETRY_AFTER_KEY, str(math.ceil(after))),)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return f"the host's disk is full{where}: make room on the file system of EMBERBOX_HOME"
    return str(error)


def _bounded(message: str) -> str:
    """A status travels in HTTP/2 headers, of which gRPC takes 8 KiB in all. The first line says
    what happened and the last ones are the console's end, so the middle goes."""
    if len(message) <= _MESSAGE_LENGTH:
        return message
    half = _MESSAGE_LENGTH // 2
    return f"{message[:half]} … {message[-half:]}"


def _status_of(error: OrchestratorError) -> grpc.StatusCode:
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return grpc.StatusCode.INTERNAL
