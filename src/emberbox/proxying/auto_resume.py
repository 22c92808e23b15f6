"""Having a sandbox resumed that traffic has come for: the API server decides, a proxy asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import grpc
import grpc.aio
import structlog

from emberbox._gen.emberbox.api.v1 import api_pb2 as pb
from emberbox._gen.emberbox.api.v1 import api_pb2_grpc as pb_grpc
from emberbox.proxying import replies
from emberbox.shared.channels import connects_within, open_channel
from emberbox.shared.joining import JointCalls
from emberbox.shared.protocol import (
    ENVD_PORT,
    GRPC_SECRET_KEY,
    HEADER_ACCESS_TOKEN,
    HEADER_TRAFFIC_TOKEN,
)

if TYPE_CHECKING:
    from grpc.aio import UnaryUnaryMultiCallable

    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.replies import Reply
    from emberbox.proxying.routing import SandboxAddress

_log = structlog.get_logger()

PATIENCE = 60.0
"""Seconds for which a request waits for its sandbox."""
_CONNECT_WITHIN = 2.0
_MOST_WAITING = 1000
"""Questions at a time; requests that ask the same share one."""
_ACCESS_TOKEN = HEADER_ACCESS_TOKEN.lower().encode("ascii")
_TRAFFIC_TOKEN = HEADER_TRAFFIC_TOKEN.lower().encode("ascii")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has come for a sandbox; tokens as the client sent them, empty when it did not."""

    sandbox_id: str
    port: int
    traffic_token: str = field(default="", repr=False)
    envd_token: str = field(default="", repr=False)

    @classmethod
    def of(cls, request: RequestHead, sandbox: SandboxAddress) -> Traffic:
        """Read the tokens out of a request."""
        return cls(
            sandbox.sandbox_id,
            sandbox.port,
            traffic_token=_text(request.get(_TRAFFIC_TOKEN)),
            envd_token=_text(request.get(_ACCESS_TOKEN)),
        )


@dataclass(frozen=True, slots=True)
class Resumed:
    """A sandbox runs, says the API server: where, and which run."""

    node_id: str
    execution_id: str
    orchestrator_address: str
    data_address: str


class Resumer(Protocol):
    """Makes sandboxes run, or says why it does not."""

    async def resume(self, traffic: Traffic) -> Resumed | Reply:
        """Return when the sandbox runs, or with what the client is to be told."""
        ...


class ResumeClient:
    """Asks the API server at `address` (host:port), over one connection.

    Must be made in the event loop that it is used in.
    """

    def __init__(self, address: str, secret: str) -> None:
        self._address = address
        self._metadata = ((GRPC_SECRET_KEY, secret),)
        self._channel = open_channel(address)
        # The generated stub carries no types.
        self._service = cast("_Service", pb_grpc.ResumeServiceStub(self._channel))
        self._asking: JointCalls[Traffic, Resumed | Reply] = JointCalls()

    async def resume(self, traffic: Traffic) -> Resumed | Reply:
        """See `Resumer`. Waits for `PATIENCE` at most."""
        if len(self._asking) >= _MOST_WAITING:
            return replies.too_many_wait(traffic.sandbox_id)
        return await self._asking.call(traffic, lambda: self._ask(traffic))

    async def close(self) -> None:
        """Stop asking."""
        await self._asking.close()
        await self._channel.close()

    async def _ask(self, traffic: Traffic) -> Resumed | Reply:
        if not await connects_within(_CONNECT_WITHIN, self._channel):
            _log.warning("the API server does not answer", address=self._address)
            return replies.nobody_resumes(traffic.sandbox_id)
        request = pb.ResumeSandboxRequest(
            sandbox_id=traffic.sandbox_id,
            port=traffic.port,
            traffic_access_token=traffic.traffic_token,
            envd_access_token=traffic.envd_token,
        )
        try:
            answer = await self._service.ResumeSandbox(
                request, timeout=PATIENCE, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            return _refusal(traffic, error)
        return Resumed(
            answer.node_id, answer.execution_id, answer.orchestrator_address, answer.data_address
        )


class _Service(Protocol):
    ResumeSandbox: UnaryUnaryMultiCallable[pb.ResumeSandboxRequest, pb.ResumeSandboxResponse]


def still_changing(traffic: Traffic) -> Reply:
    """It was waited for, and did not settle."""
    return replies.transitioning(traffic.sandbox_id, of_envd=traffic.port == ENVD_PORT)


def _refusal(traffic: Traffic, error: grpc.aio.AioRpcError) -> Reply:
    """What the client is told of an error; codes are those of api.proto."""
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return replies.not_found(traffic.sandbox_id)
        case grpc.StatusCode.PERMISSION_DENIED:
            return replies.resume_refused(traffic.sandbox_id)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return replies.sandbox_limit(traffic.sandbox_id)
        case grpc.StatusCode.ABORTED | grpc.StatusCode.DEADLINE_EXCEEDED:
            return still_changing(traffic)
        case code:
            # The reason may name what is the operator's business alone.
            _log.warning(
                "a sandbox was not resumed",
                sandbox_id=traffic.sandbox_id,
                code=code.name,
                reason=error.details(),
            )
            return replies.not_resumed(traffic.sandbox_id)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("latin-1")
