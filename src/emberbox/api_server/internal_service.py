"""The gRPC service for our own proxies, on the internal port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import structlog

from emberbox._gen.emberbox.api.v1 import api_pb2 as pb
from emberbox._gen.emberbox.api.v1 import api_pb2_grpc as pb_grpc
from emberbox.api_server import acting
from emberbox.api_server.auto_resuming import Traffic
from emberbox.api_server.errors import ApiError, BadRequestError, NodeError
from emberbox.shared import correlation, tracing
from emberbox.shared.errors import StartupError
from emberbox.shared.grpc_secret import RequireSecret
from emberbox.shared.protocol import GRPC_REQUEST_ID_KEY

if TYPE_CHECKING:
    from emberbox.api_server.auto_resuming import AutoResumer
    from emberbox.api_server.nodes import KnownNodes

    Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger(__name__)

_GRACE = 10.0
"""Seconds that calls may take to end."""

_OPTIONS = (("grpc.so_reuseport", 0),)
"""Two servers on one port would take calls from one another."""

_CODES = {
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""By HTTP status; every other is UNAVAILABLE with its reason."""


class InternalServer:
    """Serves `ResumeService` and `NodeService` behind the shared secret."""

    def __init__(self, auto_resumer: AutoResumer, nodes: KnownNodes, secret: str) -> None:
        self._server = grpc.aio.server(interceptors=[RequireSecret(secret)], options=_OPTIONS)
        resumes = _Resumes(auto_resumer, nodes)
        pb_grpc.add_ResumeServiceServicer_to_server(resumes, self._server)
        pb_grpc.add_NodeServiceServicer_to_server(_Heartbeats(nodes), self._server)

    async def start(self, host: str, port: int) -> int:
        """The port that it listens on. Raises StartupError."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(
                f"cannot listen on {address} for our own proxies: choose another port with "
                "EMBERBOX_API_INTERNAL_PORT"
            ) from error
        await self._server.start()
        return bound

    async def close(self) -> None:
        """Take no more calls; those that go on may end."""
        await self._server.stop(_GRACE)


class _Resumes(pb_grpc.ResumeServiceServicer):
    def __init__(self, auto_resumer: AutoResumer, nodes: KnownNodes) -> None:
        self._auto_resumer = auto_resumer
        self._nodes = nodes

    async def ResumeSandbox(  # noqa: N802 - the name of the call
        self, request: pb.ResumeSandboxRequest, context: Context
    ) -> pb.ResumeSandboxResponse:
        """Make a sandbox run that traffic has come for."""
        metadata = dict(context.invocation_metadata() or ())
        acting.act_as(acting.TRAFFIC)
        request_id = correlation.request_id_from(metadata.get(GRPC_REQUEST_ID_KEY))
        correlation.bind(request_id=request_id, sandbox_id=request.sandbox_id)
        try:
            with tracing.continued("resume by traffic", metadata.items()):
                return await self._resume(request)
        except ApiError as error:
            code = _CODES.get(error.status, grpc.StatusCode.UNAVAILABLE)
            return await _refuse(context, code, error.message)
        except NodeError as error:
            return await _refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        except Exception:
            log.exception("resume by traffic failed", sandbox_id=request.sandbox_id)
            reason = "Internal server error: the API server's log has the reason"
            return await _refuse(context, grpc.StatusCode.UNAVAILABLE, reason)

    async def _resume(self, request: pb.ResumeSandboxRequest) -> pb.ResumeSandboxResponse:
        row = await self._auto_resumer.resume(
            Traffic(
                sandbox_id=request.sandbox_id,
                port=request.port,
                traffic_token=request.traffic_access_token,
                envd_token=request.envd_access_token,
            )
        )
        node = await self._nodes.get(row.node_id)
        return pb.ResumeSandboxResponse(
            node_id=row.node_id,
            execution_id=row.execution_id,
            orchestrator_address=node.address,
            data_address=self._nodes.data_address(row.node_id) or "",
        )


class _Heartbeats(pb_grpc.NodeServiceServicer):
    def __init__(self, nodes: KnownNodes) -> None:
        self._nodes = nodes

    async def Heartbeat(  # noqa: N802 - the name of the call
        self, request: pb.HeartbeatRequest, context: Context
    ) -> pb.HeartbeatResponse:
        """A node is there."""
        try:
            record = await self._nodes.heard(request.info)
        except BadRequestError as error:
            return await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error.message)
        except ApiError as error:
            return await _refuse(context, grpc.StatusCode.UNAVAILABLE, error.message)
        return pb.HeartbeatResponse(draining=record.draining)


async def _refuse(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
