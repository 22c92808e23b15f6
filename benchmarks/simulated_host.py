"""Hosts without VMs for the measurement of large counts: the orchestrator's gRPC interface over
sandboxes that are entries of a dictionary. It says so in the result of whoever uses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio

from emberbox._gen.emberbox.api.v1 import api_pb2 as api
from emberbox._gen.emberbox.api.v1 import api_pb2_grpc as api_grpc
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.shared.protocol import ENVD_VERSION, GRPC_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEMPLATE_ID = "base"
BUILD_ID = "00000000-0000-4000-8000-000000000000"

Context = grpc.aio.ServicerContext[Any, Any]


class SimulatedHost(
    pb_grpc.SandboxServiceServicer, pb_grpc.InfoServiceServicer, pb_grpc.TemplateServiceServicer
):
    """One host that takes what it is given, at once."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.sandboxes: dict[str, pb.RunningSandbox] = {}
        self.port = 0
        self._server = grpc.aio.server()

    async def start(self) -> None:
        """Serve on a free port."""
        pb_grpc.add_SandboxServiceServicer_to_server(self, self._server)
        pb_grpc.add_InfoServiceServicer_to_server(self, self._server)
        pb_grpc.add_TemplateServiceServicer_to_server(_Templates(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def stop(self) -> None:
        """Cut every connection."""
        await self._server.stop(None)

    async def register(self, address: str, secret: str) -> None:
        """Tell the API server at its internal address that it is there."""
        async with grpc.aio.insecure_channel(address) as channel:
            stub = api_grpc.NodeServiceStub(channel)
            request = api.HeartbeatRequest(info=self._info())
            await stub.Heartbeat(
                request, metadata=((GRPC_SECRET_KEY, secret),), wait_for_ready=True, timeout=30
            )

    async def Create(  # noqa: N802 - gRPC's name
        self, request: pb.SandboxCreateRequest, _context: Context
    ) -> pb.SandboxCreateResponse:
        """It runs."""
        config = request.sandbox
        running = pb.RunningSandbox(
            sandbox_id=config.sandbox_id,
            execution_id=config.execution_id,
            template_id=config.template_id,
            build_id=config.build_id,
            state="running",
            end_time=request.end_time,
            metadata=config.metadata,
        )
        self.sandboxes[config.sandbox_id] = running
        return pb.SandboxCreateResponse(sandbox=running)

    async def List(  # noqa: N802
        self, _request: pb.SandboxListRequest, _context: Context
    ) -> pb.SandboxListResponse:
        """What runs."""
        return pb.SandboxListResponse(sandboxes=self.sandboxes.values())

    async def ListPaused(  # noqa: N802
        self, _request: pb.ListPausedRequest, _context: Context
    ) -> pb.ListPausedResponse:
        """Nothing is paused."""
        return pb.ListPausedResponse()

    async def Delete(  # noqa: N802
        self, request: pb.SandboxDeleteRequest, context: Context
    ) -> pb.SandboxDeleteResponse:
        """It is gone."""
        if self.sandboxes.pop(request.sandbox_id, None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        return pb.SandboxDeleteResponse()

    async def Events(  # noqa: N802
        self, _request: pb.EventsRequest, _context: Context
    ) -> AsyncIterator[pb.SandboxEvent]:
        """Nothing ends by itself."""
        await asyncio.Event().wait()
        yield pb.SandboxEvent()

    async def ServiceInfo(  # noqa: N802
        self, _request: pb.ServiceInfoRequest, _context: Context
    ) -> pb.ServiceInfoResponse:
        """A large host."""
        return self._info()

    def _info(self) -> pb.ServiceInfoResponse:
        address = f"127.0.0.1:{self.port}"
        return pb.ServiceInfoResponse(
            node_id=self.node_id,
            address=address,
            data_address=address,
            cpu_count=64,
            memory_total_mb=512 * 1024,
            max_sandboxes=100_000,
            max_ram_mb=1 << 40,
            ready=True,
        )


class _Templates(pb_grpc.TemplateServiceServicer):
    async def List(  # noqa: N802
        self, _request: pb.TemplateListRequest, _context: Context
    ) -> pb.TemplateListResponse:
        """The one that is measured with."""
        template = pb.Template(
            template_id=TEMPLATE_ID,
            build_id=BUILD_ID,
            names=["base"],
            vcpu=2,
            ram_mb=512,
            disk_mb=1024,
            envd_version=ENVD_VERSION,
        )
        return pb.TemplateListResponse(templates=[template])
