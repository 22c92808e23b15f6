"""The connection to one orchestrator."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import grpc
import grpc.aio

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.api_server import metrics
from emberbox.api_server.errors import NodeError
from emberbox.shared import correlation, tracing
from emberbox.shared.channels import connects_within, open_channel
from emberbox.shared.protocol import (
    GRPC_REQUEST_ID_KEY,
    GRPC_RETRY_AFTER_KEY,
    GRPC_SECRET_KEY,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import datetime

    from grpc.aio import UnaryStreamMultiCallable, UnaryUnaryMultiCallable

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class _Sandboxes(Protocol):
    Create: UnaryUnaryMultiCallable[pb.SandboxCreateRequest, pb.SandboxCreateResponse]
    List: UnaryUnaryMultiCallable[pb.SandboxListRequest, pb.SandboxListResponse]
    Update: UnaryUnaryMultiCallable[pb.SandboxUpdateRequest, pb.SandboxUpdateResponse]
    Delete: UnaryUnaryMultiCallable[pb.SandboxDeleteRequest, pb.SandboxDeleteResponse]
    Pause: UnaryUnaryMultiCallable[pb.SandboxPauseRequest, pb.SandboxPauseResponse]
    ListPaused: UnaryUnaryMultiCallable[pb.ListPausedRequest, pb.ListPausedResponse]
    Checkpoint: UnaryUnaryMultiCallable[pb.SandboxCheckpointRequest, pb.SandboxCheckpointResponse]
    Events: UnaryStreamMultiCallable[pb.EventsRequest, pb.SandboxEvent]
    AcknowledgeEvents: UnaryUnaryMultiCallable[
        pb.AcknowledgeEventsRequest, pb.AcknowledgeEventsResponse
    ]
    Metrics: UnaryUnaryMultiCallable[pb.SandboxMetricsRequest, pb.SandboxMetricsResponse]
    LatestMetrics: UnaryUnaryMultiCallable[
        pb.SandboxLatestMetricsRequest, pb.SandboxLatestMetricsResponse
    ]
    Logs: UnaryUnaryMultiCallable[pb.SandboxLogsRequest, pb.SandboxLogsResponse]


class _Info(Protocol):
    ServiceInfo: UnaryUnaryMultiCallable[pb.ServiceInfoRequest, pb.ServiceInfoResponse]


class _Templates(Protocol):
    List: UnaryUnaryMultiCallable[pb.TemplateListRequest, pb.TemplateListResponse]
    Delete: UnaryUnaryMultiCallable[pb.TemplateDeleteRequest, pb.TemplateDeleteResponse]


class Node:
    """One orchestrator. Every call raises NodeError; its `sent` says whether it went out.

    Timeouts are seconds.
    """

    def __init__(
        self, address: str, secret: str, *, connect_timeout: float, call_timeout: float
    ) -> None:
        self.address = address
        self.info: pb.ServiceInfoResponse | None = None
        self.node_id: str | None = None
        """The id that the node gave itself; None before that is known."""
        self._connect_timeout = connect_timeout
        self._call_timeout = call_timeout
        self._metadata = ((GRPC_SECRET_KEY, secret),)
        self._channel = open_channel(address)
        # The generated stubs carry no types.
        self._sandboxes = cast("_Sandboxes", pb_grpc.SandboxServiceStub(self._channel))
        self._info = cast("_Info", pb_grpc.InfoServiceStub(self._channel))
        self._templates = cast("_Templates", pb_grpc.TemplateServiceStub(self._channel))

    @property
    def name(self) -> str:
        """How people see it."""
        return self.node_id or self.address

    async def refresh_info(self) -> pb.ServiceInfoResponse:
        """Ask the node who it is and how it is."""
        self.info = await self._call(self._info.ServiceInfo, pb.ServiceInfoRequest())
        self.node_id = self.info.node_id
        return self.info

    async def connected(self) -> None:
        """Wait until there is a connection. Raises NodeError with `sent` False."""
        if not await connects_within(self._connect_timeout, self._channel):
            raise NodeError(
                self.name,
                grpc.StatusCode.UNAVAILABLE,
                f"the orchestrator does not answer at {self.address}",
                sent=False,
            )

    async def create(
        self, config: pb.SandboxConfig, end_at: datetime, timeout: float, *, boot: bool = False
    ) -> pb.SandboxCreateResponse:
        """Start or resume a sandbox; answers when it is ready. `boot`: from its files alone."""
        request = pb.SandboxCreateRequest(sandbox=config, end_time=end_at, filesystem_boot=boot)
        return await self._call(self._sandboxes.Create, request, timeout)

    async def sandboxes(self) -> list[pb.RunningSandbox]:
        """All that it runs, starts, pauses or ends."""
        answer = await self._call(self._sandboxes.List, pb.SandboxListRequest())
        return list(answer.sandboxes)

    async def pause(self, request: pb.SandboxPauseRequest, timeout: float) -> pb.PausedSandbox:
        """Write a run to disk and end it; answers when it is whole there."""
        return (await self._call(self._sandboxes.Pause, request, timeout)).sandbox

    async def paused(self) -> list[pb.PausedSandbox]:
        """All that it keeps on disk."""
        answer = await self._call(self._sandboxes.ListPaused, pb.ListPausedRequest())
        return list(answer.sandboxes)

    async def checkpoint(
        self, request: pb.SandboxCheckpointRequest, timeout: float
    ) -> pb.SandboxCheckpointResponse:
        """Make a build of a running sandbox, which goes on."""
        return await self._call(self._sandboxes.Checkpoint, request, timeout)

    async def set_deadline(self, sandbox_id: str, execution_id: str, end_at: datetime) -> None:
        """Replace the deadline of one run."""
        request = pb.SandboxUpdateRequest(
            sandbox_id=sandbox_id, execution_id=execution_id, end_time=end_at
        )
        await self._call(self._sandboxes.Update, request)

    async def set_egress(
        self, sandbox_id: str, execution_id: str, egress: pb.SandboxNetworkEgressConfig
    ) -> None:
        """Replace what one run may reach."""
        request = pb.SandboxUpdateRequest(
            sandbox_id=sandbox_id, execution_id=execution_id, egress=egress
        )
        await self._call(self._sandboxes.Update, request)

    async def delete(self, sandbox_id: str, reason: str) -> bool:
        """End a sandbox; False when the node has none of this id."""
        request = pb.SandboxDeleteRequest(sandbox_id=sandbox_id, reason=reason)
        return await self._found(self._sandboxes.Delete, request)

    async def metrics(self, request: pb.SandboxMetricsRequest) -> list[pb.SandboxMetric]:
        """What a sandbox has used, oldest first."""
        return list((await self._call(self._sandboxes.Metrics, request)).samples)

    async def latest_metrics(self, sandbox_ids: Iterable[str]) -> dict[str, pb.SandboxMetric]:
        """The newest sample of each that has one."""
        request = pb.SandboxLatestMetricsRequest(sandbox_ids=sandbox_ids)
        return dict((await self._call(self._sandboxes.LatestMetrics, request)).samples)

    async def logs(self, request: pb.SandboxLogsRequest) -> list[pb.LogEntry]:
        """Entries of the log of a sandbox, also of one that ended lately."""
        return list((await self._call(self._sandboxes.Logs, request)).entries)

    async def templates(self) -> list[pb.Template]:
        """The templates that it can start."""
        answer = await self._call(self._templates.List, pb.TemplateListRequest())
        return list(answer.templates)

    async def delete_build(self, template_id: str, build_id: str) -> bool:
        """Remove what a checkpoint made; False when the node has no such build."""
        request = pb.TemplateDeleteRequest(template_id=template_id, build_id=build_id)
        return await self._found(self._templates.Delete, request)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[pb.SandboxEvent]]:
        """Outcomes not yet acknowledged, then those to come; the stream ends with the block."""
        await self.connected()
        call = self._sandboxes.Events(pb.EventsRequest(), metadata=self._metadata)
        try:
            yield aiter(call)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        finally:
            call.cancel()

    async def acknowledge(self, number: int) -> None:
        """Let the node forget outcomes up to `number`."""
        request = pb.AcknowledgeEventsRequest(number=number)
        await self._call(self._sandboxes.AcknowledgeEvents, request)

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()

    async def _found(
        self, method: UnaryUnaryMultiCallable[Request, Answer], request: Request
    ) -> bool:
        try:
            await self._call(method, request)
        except NodeError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True

    async def _call(
        self,
        method: UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        timeout: float | None = None,
    ) -> Answer:
        await self.connected()
        name = type(request).__name__.removesuffix("Request")
        with tracing.span(f"call {name}", node=self.name), metrics.host_call(name) as call:
            try:
                return await method(
                    request, timeout=timeout or self._call_timeout, metadata=self._carried()
                )
            except grpc.aio.AioRpcError as error:
                call.code = error.code().name
                raise self._failed(error) from error

    def _carried(self) -> tuple[tuple[str, str], ...]:
        request_id = correlation.current_request_id()
        named = ((GRPC_REQUEST_ID_KEY, request_id),) if request_id else ()
        return (*self._metadata, *named, *tracing.to_carry().items())

    def _failed(self, error: grpc.aio.AioRpcError) -> NodeError:
        metadata = dict(error.trailing_metadata() or ())
        after = str(metadata.get(GRPC_RETRY_AFTER_KEY, ""))
        return NodeError(
            self.name,
            error.code(),
            error.details() or "no reason given",
            sent=True,
            retry_after=int(after) if after.isdecimal() else None,
        )
