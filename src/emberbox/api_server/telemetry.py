"""Metrics and logs of teams' sandboxes, asked of the hosts that have them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.errors import NodeError, NodeUnavailableError, SandboxNotFoundError
from emberbox.api_server.records.lifecycle import VISIBLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.store.rows import Team
    from emberbox.api_server.store.sandboxes import SandboxStore

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Raises SandboxNotFoundError, also for another team's sandbox, and NodeUnavailableError when
    the host does not answer."""

    store: SandboxStore
    nodes: Nodes

    async def metrics(
        self, team: Team, sandbox_id: str, start: int | None, end: int | None
    ) -> list[pb.SandboxMetric]:
        """Samples of a sandbox that lives, oldest first; none yet when it has just begun."""
        row = await self.store.own(team.team_id, sandbox_id)
        if row.state not in VISIBLE:
            raise SandboxNotFoundError(sandbox_id)
        request = pb.SandboxMetricsRequest(sandbox_id=sandbox_id, start=start, end=end)
        found = await self._ask(
            row.node_id, f"read the metrics of {sandbox_id}", lambda node: node.metrics(request)
        )
        return found or []

    async def latest(self, team: Team, sandbox_ids: Collection[str]) -> dict[str, pb.SandboxMetric]:
        """The newest sample of each of the team's own among these that has one."""
        by_node: defaultdict[str, list[str]] = defaultdict(list)
        for row in await self.store.several(sandbox_ids):
            if row.team_id == team.team_id and row.state in VISIBLE:
                by_node[row.node_id].append(row.sandbox_id)
        answers = await asyncio.gather(*(self._latest(*item) for item in by_node.items()))
        return {one: sample for answer in answers for one, sample in answer.items()}

    async def logs(self, team: Team, request: pb.SandboxLogsRequest) -> list[pb.LogEntry]:
        """Entries of the log of a sandbox that lives or ended lately."""
        row = await self.store.own(team.team_id, request.sandbox_id)
        found = await self._ask(
            row.node_id, f"read the logs of {row.sandbox_id}", lambda node: node.logs(request)
        )
        if found is None and row.state not in VISIBLE:
            raise SandboxNotFoundError(row.sandbox_id)
        return found or []

    async def _latest(self, node_id: str, sandbox_ids: list[str]) -> dict[str, pb.SandboxMetric]:
        found = await self._ask(
            node_id, "read metrics", lambda node: node.latest_metrics(sandbox_ids)
        )
        return found or {}

    async def _ask(
        self, node_id: str, doing: str, question: Callable[[Node], Awaitable[Answer]]
    ) -> Answer | None:
        """The answer of a host; None when it knows nothing of the sandbox."""
        node = await self.nodes.find(node_id)
        if node is None:
            raise NodeUnavailableError(doing, node_id, "the host is not connected")
        try:
            return await question(node)
        except NodeError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise NodeUnavailableError(doing, error.node, error.reason) from error
