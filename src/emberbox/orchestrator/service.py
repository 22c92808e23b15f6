"""The gRPC interface: thin, between the wire's messages and the host's objects."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import BadRequest
from emberbox.orchestrator.grpc_support import Context, answering
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.beginning import CreateRequest
from emberbox.orchestrator.sandboxes.copying import Wanted
from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested, State
from emberbox.orchestrator.telemetry.entries import LEVELS, LogQuery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import DriverReport
    from emberbox.orchestrator.outbox import Outbox, OutboxEntry
    from emberbox.orchestrator.readiness import Readiness
    from emberbox.orchestrator.sandboxes.host import Sandboxes
    from emberbox.orchestrator.sandboxes.sandbox import Sandbox
    from emberbox.orchestrator.snapshots.manifest import Snapshot
    from emberbox.orchestrator.telemetry.entries import Entry
    from emberbox.orchestrator.telemetry.samples import Sample
    from emberbox.orchestrator.telemetry.telemetry import Telemetry
    from emberbox.orchestrator.templates.catalog import TemplateCatalog
    from emberbox.orchestrator.templates.store import Template

_OUTCOMES = {
    "killed": pb.OUTCOME_KILLED,
    "expired": pb.OUTCOME_EXPIRED,
    "crashed": pb.OUTCOME_CRASHED,
    "paused": pb.OUTCOME_PAUSED,
}


class SandboxService(pb_grpc.SandboxServiceServicer):
    """The sandboxes of this host."""

    def __init__(self, sandboxes: Sandboxes, outbox: Outbox, telemetry: Telemetry) -> None:
        self._sandboxes = sandboxes
        self._outbox = outbox
        self._telemetry = telemetry

    @answering
    async def Create(
        self, request: pb.SandboxCreateRequest, _context: Context
    ) -> pb.SandboxCreateResponse:
        """Start one sandbox."""
        sandbox = await self._sandboxes.create(_create_request(request))
        return pb.SandboxCreateResponse(
            sandbox=_running_sandbox(sandbox),
            steps=_steps(sandbox),
            notice=sandbox.record.notice,
        )

    @answering
    async def Get(self, request: pb.SandboxGetRequest, _context: Context) -> pb.SandboxGetResponse:
        """One sandbox and its story."""
        sandbox = self._sandboxes.get(request.sandbox_id)
        return pb.SandboxGetResponse(sandbox=_running_sandbox(sandbox), story=sandbox.story())

    @answering
    async def List(
        self, _request: pb.SandboxListRequest, _context: Context
    ) -> pb.SandboxListResponse:
        """Everything that is not wholly gone."""
        return pb.SandboxListResponse(sandboxes=[_running_sandbox(s) for s in self._sandboxes])

    @answering
    async def Update(
        self, request: pb.SandboxUpdateRequest, _context: Context
    ) -> pb.SandboxUpdateResponse:
        """Move a deadline."""
        execution_id = request.execution_id if request.HasField("execution_id") else None
        end_time = request.end_time.ToDatetime(UTC).timestamp()
        self._sandboxes.update(request.sandbox_id, end_time, execution_id)
        self._telemetry.deadline_moved(request.sandbox_id, end_time)
        return pb.SandboxUpdateResponse()

    @answering
    async def Pause(
        self, request: pb.SandboxPauseRequest, _context: Context
    ) -> pb.SandboxPauseResponse:
        """Write a sandbox to disk."""
        wanted = PauseRequested("asked", request.filesystem_only, request.require_healthy_guest)
        # It goes on when the caller has given up: the outbox tells how it ended.
        snapshot = await asyncio.shield(
            self._sandboxes.pause(request.sandbox_id, request.execution_id, wanted)
        )
        return pb.SandboxPauseResponse(sandbox=_paused_sandbox(snapshot))

    @answering
    async def Checkpoint(
        self, request: pb.SandboxCheckpointRequest, _context: Context
    ) -> pb.SandboxCheckpointResponse:
        """Make a template build of a sandbox that runs on."""
        wanted = Wanted(request.template_id, request.build_id, request.filesystem_only)
        kept = await asyncio.shield(
            self._sandboxes.checkpoint(request.sandbox_id, request.execution_id, wanted)
        )
        return pb.SandboxCheckpointResponse(
            template=_template(kept.template),
            memory_bytes=kept.memory_bytes,
            disk_bytes=kept.disk_bytes,
        )

    @answering
    async def ListPaused(
        self, _request: pb.ListPausedRequest, _context: Context
    ) -> pb.ListPausedResponse:
        """What is paused here."""
        snapshots = await self._sandboxes.paused()
        return pb.ListPausedResponse(sandboxes=map(_paused_sandbox, snapshots))

    @answering
    async def Delete(
        self, request: pb.SandboxDeleteRequest, _context: Context
    ) -> pb.SandboxDeleteResponse:
        """End a sandbox."""
        # A caller that gives up does not leave a sandbox half ended.
        await asyncio.shield(self._sandboxes.delete(request.sandbox_id, request.reason or "asked"))
        return pb.SandboxDeleteResponse()

    async def Events(
        self, request: pb.EventsRequest, _context: Context
    ) -> AsyncIterator[pb.SandboxEvent]:
        """Outcomes, those that wait first."""
        number = request.after
        while True:
            added = self._outbox.added  # taken first: what comes while reading sets it
            entries = self._outbox.after(number)
            for entry in entries:
                number = entry.number
                yield _event(entry)
            if not entries:
                await added.wait()

    @answering
    async def AcknowledgeEvents(
        self, request: pb.AcknowledgeEventsRequest, _context: Context
    ) -> pb.AcknowledgeEventsResponse:
        """Forget what an API server has taken."""
        self._outbox.acknowledge(request.number)
        return pb.AcknowledgeEventsResponse()

    @answering
    async def Metrics(
        self, request: pb.SandboxMetricsRequest, _context: Context
    ) -> pb.SandboxMetricsResponse:
        """What a sandbox has used."""
        start = request.start if request.HasField("start") else None
        end = request.end if request.HasField("end") else None
        if start is not None and end is not None and start > end:
            raise BadRequest(f"start {start} is after end {end}")
        samples = await self._telemetry.metrics(request.sandbox_id, start, end)
        return pb.SandboxMetricsResponse(samples=map(_metric, samples))

    @answering
    async def LatestMetrics(
        self, request: pb.SandboxLatestMetricsRequest, _context: Context
    ) -> pb.SandboxLatestMetricsResponse:
        """What sandboxes use now."""
        latest = self._telemetry.latest(request.sandbox_ids)
        samples = {sandbox_id: _metric(sample) for sandbox_id, sample in latest.items()}
        return pb.SandboxLatestMetricsResponse(samples=samples)

    @answering
    async def Logs(
        self, request: pb.SandboxLogsRequest, _context: Context
    ) -> pb.SandboxLogsResponse:
        """What happened to and in a sandbox."""
        entries = await self._telemetry.logs(request.sandbox_id, _log_query(request))
        return pb.SandboxLogsResponse(entries=map(_log_entry, entries))


class InfoService(pb_grpc.InfoServiceServicer):
    """What this host is and has."""

    def __init__(
        self,
        node_id: str,
        state: Path,
        report: DriverReport,
        readiness: Readiness,
        sandboxes: Sandboxes,
    ) -> None:
        self._node_id = node_id
        self._state = state
        self._report = report
        self._readiness = readiness
        self._sandboxes = sandboxes

    @answering
    async def ServiceInfo(
        self, _request: pb.ServiceInfoRequest, _context: Context
    ) -> pb.ServiceInfoResponse:
        """A reading of this moment."""
        total, available = admission.memory_mb()
        pool = self._sandboxes.pool
        return pb.ServiceInfoResponse(
            node_id=self._node_id,
            version=version("emberbox"),
            driver=self._report.name,
            accelerator=self._report.accelerator,
            sandboxes_running=len(self._sandboxes.running()),
            cpu_count=os.cpu_count() or 1,
            memory_total_mb=total,
            memory_available_mb=available,
            disk_available_mb=admission.disk_available_mb(self._state),
            ready=self._readiness.ready,
            status=self._readiness.status,
            pool_ready=pool.ready,
            pool_making=pool.making,
            pool_wanted=pool.wanted,
        )


class TemplateService(pb_grpc.TemplateServiceServicer):
    """The templates that sandboxes can be made from here."""

    def __init__(self, templates: TemplateCatalog, sandboxes: Sandboxes) -> None:
        self._templates = templates
        self._sandboxes = sandboxes

    @answering
    async def List(
        self, _request: pb.TemplateListRequest, _context: Context
    ) -> pb.TemplateListResponse:
        """Every offered build of the host's own templates."""
        return pb.TemplateListResponse(templates=[_template(t) for t in self._templates.all()])

    @answering
    async def Delete(
        self, request: pb.TemplateDeleteRequest, _context: Context
    ) -> pb.TemplateDeleteResponse:
        """Remove what a checkpoint made."""
        await asyncio.shield(
            self._sandboxes.remove_checkpoint(request.template_id, request.build_id)
        )
        return pb.TemplateDeleteResponse()


class HostService(pb_grpc.HostServiceServicer):
    """Ending the host on purpose."""

    def __init__(self, shut_down: Callable[[bool], Awaitable[int]]) -> None:
        self._shut_down = shut_down

    @answering
    async def Shutdown(self, request: pb.ShutdownRequest, _context: Context) -> pb.ShutdownResponse:
        """End the sandboxes, unless they are to be kept, and then this program."""
        # Once begun it goes on, also when the caller has given up waiting.
        ended = await asyncio.shield(self._shut_down(request.keep_sandboxes))
        return pb.ShutdownResponse(sandboxes_ended=ended)


def _create_request(request: pb.SandboxCreateRequest) -> CreateRequest:
    config = request.sandbox
    return CreateRequest(
        identity=Identity(
            sandbox_id=config.sandbox_id,
            template_id=config.template_id,
            execution_id=config.execution_id,
            access_token=config.envd_access_token,
            env_vars=dict(config.env_vars),
        ),
        build_id=config.build_id,
        end_time=request.end_time.ToDatetime(UTC).timestamp(),
        internet=config.allow_internet_access,
        metadata=dict(config.metadata),
        traffic_token=(
            config.traffic_access_token if config.HasField("traffic_access_token") else None
        ),
        cold=request.filesystem_boot,
        snapshot=config.snapshot,
        auto_pause=config.auto_pause,
        auto_pause_files_only=config.auto_pause_filesystem_only,
        group=config.queue_group,
    )


def _running_sandbox(sandbox: Sandbox) -> pb.RunningSandbox:
    record = sandbox.record
    return pb.RunningSandbox(
        sandbox_id=record.sandbox_id,
        execution_id=record.execution_id,
        template_id=record.template_id,
        build_id=record.build_id,
        # A copy is over in a moment and nobody else need know.
        state=(State.RUNNING if sandbox.state is State.COPYING else sandbox.state).value,
        vcpu=record.vcpu,
        ram_mb=record.ram_mb,
        disk_mb=record.disk_mb,
        envd_version=record.envd_version,
        start_time=_time(record.start_time),
        end_time=_time(record.end_time),
        metadata=record.metadata,
        way=sandbox.way,
        steps=_steps(sandbox),
    )


def _steps(sandbox: Sandbox) -> list[pb.Step]:
    return [pb.Step(name=name, milliseconds=ms) for name, ms in sandbox.steps.taken]


def _paused_sandbox(snapshot: Snapshot) -> pb.PausedSandbox:
    return pb.PausedSandbox(
        sandbox_id=snapshot.sandbox_id,
        execution_id=snapshot.execution_id,
        template_id=snapshot.template_id,
        build_id=snapshot.build_id,
        vcpu=snapshot.vcpu,
        ram_mb=snapshot.ram_mb,
        disk_mb=snapshot.disk_mb,
        envd_version=snapshot.envd_version,
        metadata=snapshot.metadata,
        paused_at=_time(snapshot.paused_at),
        memory=snapshot.memory,
        memory_bytes=snapshot.memory_bytes,
        disk_bytes=snapshot.disk_bytes,
    )


def _event(entry: OutboxEntry) -> pb.SandboxEvent:
    return pb.SandboxEvent(
        number=entry.number,
        sandbox_id=entry.sandbox_id,
        execution_id=entry.execution_id,
        outcome=_OUTCOMES[entry.outcome],
        reason=entry.reason,
        at=_time(entry.at),
    )


def _metric(sample: Sample) -> pb.SandboxMetric:
    return pb.SandboxMetric(
        at=_time(sample.at),
        cpu_count=sample.cpu_count,
        cpu_used_percent=sample.cpu_used_percent,
        mem_used=sample.mem_used,
        mem_total=sample.mem_total,
        mem_cache=sample.mem_cache,
        disk_used=sample.disk_used,
        disk_total=sample.disk_total,
    )


def _log_query(request: pb.SandboxLogsRequest) -> LogQuery:
    if request.level and request.level not in LEVELS:
        raise BadRequest(f"level {request.level!r} is none of {', '.join(LEVELS)}")
    return LogQuery(
        start_ms=request.start_ms if request.HasField("start_ms") else None,
        end_ms=request.end_ms if request.HasField("end_ms") else None,
        limit=request.limit,
        newest_first=request.newest_first,
        level=request.level,
        search=request.search,
    )


def _log_entry(entry: Entry) -> pb.LogEntry:
    return pb.LogEntry(
        at=_time(entry.at),
        level=entry.level,
        logger=entry.logger,
        message=entry.message,
        fields=entry.fields,
    )


def _template(template: Template) -> pb.Template:
    return pb.Template(
        template_id=template.spec.template_id,
        build_id=template.build_id,
        names=template.spec.names,
        vcpu=template.hardware.vcpu,
        ram_mb=template.hardware.ram_mb,
        disk_mb=template.manifest.disk_mb,
        envd_version=template.manifest.envd_version,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
