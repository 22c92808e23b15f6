"""A stand-in for the orchestrator: the services of its proto over a real gRPC server, with
sandboxes that are only entries in memory. Tests tell it how to misbehave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.shared.protocol import ENVD_VERSION, GRPC_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "secret of the tests"
BASE_ID = "base0000000000000000"
MOMENT = datetime(2026, 8, 21, 10, 0, 0, 250_000, tzinfo=UTC)
"""When whatever ends or pauses did so."""
BUILD_ID = "7f5b1c8e-6a0f-4a52-9d5c-0d8f6f1f9a11"


@dataclass
class Standin:
    """One host."""

    node_id: str = "node-1"
    capacity: int = 1000
    max_sandboxes: int = 1000
    data_address: str = "127.0.0.1:5007"
    labels: dict[str, str] = field(default_factory=dict)
    shared_directory: str = ""
    ready: bool = True
    sandboxes: dict[str, pb.RunningSandbox] = field(default_factory=dict)
    configs: dict[str, pb.SandboxConfig] = field(default_factory=dict)
    paused: dict[str, pb.PausedSandbox] = field(default_factory=dict)
    builds: dict[str, pb.SandboxCheckpointRequest] = field(default_factory=dict)
    outbox: list[pb.SandboxEvent] = field(default_factory=list)
    acknowledged: int = 0
    deleted: list[str] = field(default_factory=list)
    templates: list[pb.Template] = field(default_factory=list)
    # While set, Create makes its sandbox and then keeps its answer back.
    hold_create: asyncio.Event | None = None
    hold_delete: asyncio.Event | None = None
    # While set, Pause ends its sandbox's VM and then keeps its answer back.
    hold_pause: asyncio.Event | None = None
    pause_began: asyncio.Event = field(default_factory=asyncio.Event)
    fail_pause: tuple[grpc.StatusCode, str] | None = None
    fail_checkpoint: tuple[grpc.StatusCode, str] | None = None
    notice: str = ""
    # Of the last create, by key.
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    # What it was asked to do, in order.
    calls: list[str] = field(default_factory=list)
    creates: list[pb.SandboxCreateRequest] = field(default_factory=list)
    pauses: list[pb.SandboxPauseRequest] = field(default_factory=list)
    create_began: asyncio.Event = field(default_factory=asyncio.Event)
    fail_create: tuple[grpc.StatusCode, str] | None = None
    # Seconds, told with every refusal for want of room.
    retry_after: int | None = None
    steps: list[tuple[str, float]] = field(default_factory=list)
    fail_list: bool = False
    fail_update: tuple[grpc.StatusCode, str] | None = None
    # What it has of a sandbox, by id.
    samples: dict[str, list[pb.SandboxMetric]] = field(default_factory=dict)
    logs: dict[str, list[pb.LogEntry]] = field(default_factory=dict)
    asked: list[pb.SandboxMetricsRequest | pb.SandboxLogsRequest] = field(default_factory=list)
    port: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: grpc.aio.Server | None = None

    def __post_init__(self) -> None:
        self.templates.append(template(["base"], BASE_ID))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Serve; on the same port as before when it has served already."""
        server = grpc.aio.server(interceptors=[_SecretCheck()])
        pb_grpc.add_SandboxServiceServicer_to_server(_Sandboxes(self), server)
        pb_grpc.add_InfoServiceServicer_to_server(_Info(self), server)
        pb_grpc.add_TemplateServiceServicer_to_server(_Templates(self), server)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    def info(self) -> pb.ServiceInfoResponse:
        """What it tells of itself."""
        return pb.ServiceInfoResponse(
            node_id=self.node_id,
            address=self.address,
            data_address=self.data_address,
            labels=self.labels,
            cpu_model="stand-in",
            cpu_count=2,
            max_sandboxes=self.max_sandboxes,
            max_ram_mb=1 << 20,
            shared_directory=self.shared_directory,
            ready=self.ready,
            status="" if self.ready else "building the base image",
        )

    async def stop(self) -> None:
        """Cut every connection; the sandboxes stay."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def report(self, sandbox_id: str, outcome: pb.Outcome, reason: str = "") -> int:
        """A sandbox ends by itself: into the outbox with it."""
        running = self.sandboxes.pop(sandbox_id)
        event = pb.SandboxEvent(
            number=len(self.outbox) + 1,
            sandbox_id=sandbox_id,
            execution_id=running.execution_id,
            outcome=outcome,
            reason=reason,
            at=MOMENT,
        )
        if outcome == pb.OUTCOME_PAUSED:
            memory = not self.configs[sandbox_id].auto_pause_filesystem_only
            self.keep(running, memory=memory)
        async with self._changed:
            self.outbox.append(event)
            self._changed.notify_all()
        return event.number

    def keep(self, running: pb.RunningSandbox, *, memory: bool = True) -> pb.PausedSandbox:
        """A snapshot of what ran is on its disk."""
        kept = pb.PausedSandbox(
            sandbox_id=running.sandbox_id,
            execution_id=running.execution_id,
            template_id=running.template_id,
            build_id=running.build_id,
            metadata=running.metadata,
            paused_at=MOMENT,
            memory=memory,
        )
        self.paused[running.sandbox_id] = kept
        return kept

    def has_build(self, config: pb.SandboxConfig) -> bool:
        """Whether it can start this one."""
        build = self.builds.get(config.build_id)
        known = {(one.template_id, one.build_id) for one in self.templates}
        if build is not None:
            known.add((build.template_id, build.build_id))
        return (config.template_id, config.build_id) in known

    async def events(self, after: int) -> AsyncIterator[pb.SandboxEvent]:
        """Those not acknowledged, then new ones."""
        at = max(after, self.acknowledged)
        while True:
            async with self._changed:
                while len(self.outbox) <= at:
                    await self._changed.wait()
                event = self.outbox[at]
            at += 1
            yield event


def template(
    names: list[str], template_id: str, build_id: str = BUILD_ID, **sizes: int
) -> pb.Template:
    """A template as a host lists it."""
    return pb.Template(
        template_id=template_id,
        build_id=build_id,
        names=names,
        vcpu=sizes.get("vcpu", 2),
        ram_mb=sizes.get("ram_mb", 512),
        disk_mb=sizes.get("disk_mb", 1024),
        envd_version=ENVD_VERSION,
    )


class _SecretCheck(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]
        if dict(details.invocation_metadata).get(GRPC_SECRET_KEY) == SECRET:
            return await continuation(details)

        async def refuse(_request: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong secret")

        return grpc.unary_unary_rpc_method_handler(refuse)


class _Sandboxes(pb_grpc.SandboxServiceServicer):
    def __init__(self, host: Standin) -> None:
        self.host = host

    async def Create(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        host, config = self.host, request.sandbox
        host.creates.append(request)
        host.calls.append("create")
        host.metadata["create"] = dict(context.invocation_metadata())
        host.create_began.set()
        there = host.sandboxes.get(config.sandbox_id)
        if there is not None and there.execution_id == config.execution_id:
            return await self._created(there)
        if there is not None:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another run of it is here")
        if host.fail_create is not None:
            await context.abort(*host.fail_create)
        if config.snapshot and config.sandbox_id not in host.paused:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such paused sandbox here")
        if not config.snapshot and not host.has_build(config):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such template here")
        if len(host.sandboxes) >= host.capacity:
            after = host.retry_after
            more = () if after is None else (("retry-after", str(after)),)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no memory left", more)
        running = pb.RunningSandbox(
            sandbox_id=config.sandbox_id,
            execution_id=config.execution_id,
            template_id=config.template_id,
            build_id=config.build_id,
            state="running",
            end_time=request.end_time,
            metadata=config.metadata,
        )
        host.sandboxes[config.sandbox_id] = running
        host.configs[config.sandbox_id] = config
        host.paused.pop(config.sandbox_id, None)
        return await self._created(running)

    async def _created(self, running: pb.RunningSandbox) -> pb.SandboxCreateResponse:
        if self.host.hold_create is not None:
            await self.host.hold_create.wait()
        steps = [pb.Step(name=name, milliseconds=ms) for name, ms in self.host.steps]
        return pb.SandboxCreateResponse(sandbox=running, steps=steps, notice=self.host.notice)

    async def Pause(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        host = self.host
        host.pauses.append(request)
        host.calls.append("pause")
        host.pause_began.set()
        if host.fail_pause is not None:
            if host.hold_pause is not None:
                await host.hold_pause.wait()
            await context.abort(*host.fail_pause)
        kept = host.paused.get(request.sandbox_id)
        if kept is None or kept.execution_id != request.execution_id:
            running = host.sandboxes.get(request.sandbox_id)
            if running is None:
                return await context.abort(grpc.StatusCode.NOT_FOUND, "it does not run here")
            if running.execution_id != request.execution_id:
                await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another run of it is here")
            kept = host.keep(running, memory=not request.filesystem_only)
            del host.sandboxes[request.sandbox_id]
        if host.hold_pause is not None:
            await host.hold_pause.wait()
        return pb.SandboxPauseResponse(sandbox=kept)

    async def ListPaused(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        return pb.ListPausedResponse(sandboxes=self.host.paused.values())

    async def Checkpoint(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        host = self.host
        if host.fail_checkpoint is not None:
            await context.abort(*host.fail_checkpoint)
        running = host.sandboxes.get(request.sandbox_id)
        if running is None:
            return await context.abort(grpc.StatusCode.NOT_FOUND, "it does not run here")
        if running.execution_id != request.execution_id:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another run of it is here")
        host.builds[request.build_id] = request
        return pb.SandboxCheckpointResponse(
            template=template([], request.template_id, request.build_id),
            memory_bytes=5,
            disk_bytes=7,
        )

    async def List(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        if self.host.fail_list:
            await context.abort(grpc.StatusCode.INTERNAL, "the list is broken")
        return pb.SandboxListResponse(sandboxes=self.host.sandboxes.values())

    async def Update(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        running = self.host.sandboxes.get(request.sandbox_id)
        if running is None:
            return await context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        if request.execution_id not in ("", running.execution_id):
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another run")
        if self.host.fail_update is not None:
            await context.abort(*self.host.fail_update)
        if request.HasField("end_time"):
            running.end_time.CopyFrom(request.end_time)
        if request.HasField("egress"):
            self.host.configs[request.sandbox_id].network.egress.CopyFrom(request.egress)
        return pb.SandboxUpdateResponse()

    async def Delete(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        self.host.deleted.append(request.sandbox_id)
        if self.host.hold_delete is not None:
            await self.host.hold_delete.wait()
        runs = self.host.sandboxes.pop(request.sandbox_id, None)
        if runs is None and self.host.paused.pop(request.sandbox_id, None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        return pb.SandboxDeleteResponse()

    async def Events(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        async for event in self.host.events(request.after):
            yield event

    async def AcknowledgeEvents(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        self.host.acknowledged = max(self.host.acknowledged, request.number)
        return pb.AcknowledgeEventsResponse()

    async def Metrics(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        self.host.asked.append(request)
        if request.sandbox_id not in self.host.samples:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing of it here")
        return pb.SandboxMetricsResponse(samples=self.host.samples[request.sandbox_id])

    async def LatestMetrics(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        known = (one for one in request.sandbox_ids if self.host.samples.get(one))
        samples = {one: self.host.samples[one][-1] for one in known}
        return pb.SandboxLatestMetricsResponse(samples=samples)

    async def Logs(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        self.host.asked.append(request)
        if request.sandbox_id not in self.host.logs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing of it here")
        return pb.SandboxLogsResponse(entries=self.host.logs[request.sandbox_id])


class _Info(pb_grpc.InfoServiceServicer):
    def __init__(self, host: Standin) -> None:
        self.host = host

    async def ServiceInfo(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        return self.host.info()


class _Templates(pb_grpc.TemplateServiceServicer):
    def __init__(self, host: Standin) -> None:
        self.host = host

    async def List(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        made = [template([], one.template_id, one.build_id) for one in self.host.builds.values()]
        return pb.TemplateListResponse(templates=[*self.host.templates, *made])

    async def Delete(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        host = self.host
        standing = {one.build_id for one in host.sandboxes.values()}
        standing |= {one.build_id for one in host.paused.values()}
        if request.build_id not in host.builds:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such build here")
        if request.build_id in standing:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "sandboxes stand on it")
        del host.builds[request.build_id]
        return pb.TemplateDeleteResponse()
