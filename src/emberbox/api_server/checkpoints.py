"""Builds of sandboxes that run on: how they are made, and removed when nothing needs them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import structlog

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.errors import ApiError, NodeError, NodeUnavailableError
from emberbox.api_server.pausing import OUTCOME_UNKNOWN, snapshot_failure
from emberbox.api_server.records import history
from emberbox.api_server.records.history import What
from emberbox.api_server.store.rows import Build, BuildState
from emberbox.shared.ids import new_run_id, new_sandbox_id

if TYPE_CHECKING:
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.store.builds import BuildStore
    from emberbox.api_server.store.events import EventStore
    from emberbox.api_server.store.rows import Sandbox

log = structlog.get_logger(__name__)

_ABANDONED_AFTER = timedelta(minutes=15)
"""Longer than any checkpoint and the creates that follow it: whoever made it is gone."""


class Checkpoints:
    """`timeout` is seconds."""

    def __init__(
        self,
        builds: BuildStore,
        events: EventStore,
        nodes: Nodes,
        clock: Clock,
        timeout: float,
    ) -> None:
        self._builds = builds
        self._events = events
        self._nodes = nodes
        self._clock = clock
        self._timeout = timeout
        self._told: set[str] = set()

    async def make(self, row: Sandbox, *, memory: bool = True, name: str | None = None) -> Build:
        """A build of a running sandbox: written down, on its node, and safe from the sweep until
        it is finished or released.

        Raises SandboxNotFoundError, SnapshotFailedError, NodeUnavailableError, and
        BadRequestError when `name` is another team's.
        """
        begun = self._begun(row, memory)
        begun = replace(begun, template_id=await self._builds.begin(begun, row.team_id, name))
        request = pb.SandboxCheckpointRequest(
            sandbox_id=row.sandbox_id,
            execution_id=row.execution_id,
            template_id=begun.template_id,
            build_id=begun.build_id,
            filesystem_only=not memory,
        )
        try:
            node = await self._nodes.get(row.node_id)
            answer = await node.checkpoint(request, self._timeout)
        except NodeError as error:
            raise await self._failed(row, begun, error) from error
        ids = {"made_template_id": begun.template_id, "made_build_id": begun.build_id}
        await self._events.add(history.entry(row, What.CHECKPOINTED, self._clock(), **ids))
        return replace(begun, memory_bytes=answer.memory_bytes, disk_bytes=answer.disk_bytes)

    async def sweep(self) -> None:
        """Remove builds that no tag means and no sandbox stands on; what fails is tried again at
        the next sweep."""
        made_before = self._clock() - _ABANDONED_AFTER
        for build in await self._builds.garbage(made_before):
            if await self._builds.condemn(build, made_before):
                await self._remove(build)

    def _begun(self, row: Sandbox, memory: bool) -> Build:
        return Build(
            build_id=new_run_id(),
            template_id=new_sandbox_id(),
            node_id=row.node_id,
            state=BuildState.MAKING,
            vcpu=row.vcpu,
            ram_mb=row.ram_mb,
            disk_mb=row.disk_mb,
            envd_version=row.envd_version,
            memory=memory,
            origin_sandbox_id=row.sandbox_id,
            created_at=self._clock(),
        )

    async def _failed(self, row: Sandbox, build: Build, error: NodeError) -> ApiError:
        doing = f"take a snapshot of sandbox {row.sandbox_id}"
        if error.sent and error.code in OUTCOME_UNKNOWN:
            # It stays "making", and is swept when it is old.
            return NodeUnavailableError(doing, error.node, error.reason)
        await self._builds.forget(build)
        return snapshot_failure(row, doing, error)

    async def _remove(self, build: Build) -> None:
        try:
            node = await self._nodes.get(build.node_id)
            await node.delete_build(build.template_id, build.build_id)
        except NodeError as error:
            if error.code is not grpc.StatusCode.UNAVAILABLE and build.build_id not in self._told:
                self._told.add(build.build_id)  # once, not at every sweep
                log.warning(
                    "build not removed yet",
                    node=error.node,
                    template_id=build.template_id,
                    build_id=build.build_id,
                    reason=error.reason,
                )
            return
        self._told.discard(build.build_id)
        log.info("build removed", template_id=build.template_id, build_id=build.build_id)
        await self._builds.forget(build)
