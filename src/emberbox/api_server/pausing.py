"""Pausing: memory and files to disk, the VM gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.errors import (
    AlreadyPausedError,
    ApiError,
    ConflictError,
    NodeError,
    NodeUnavailableError,
    SandboxNotFoundError,
    SnapshotFailedError,
)
from emberbox.api_server.records.lifecycle import VISIBLE, PauseAsked, Paused, PauseRefused, State
from emberbox.shared.joining import JointCalls

if TYPE_CHECKING:
    from emberbox.api_server.catching_up import CatchUp
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.records.keeper import Keeper
    from emberbox.api_server.store.rows import Sandbox, Team

OUTCOME_UNKNOWN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)
"""Codes of a call that was sent and whose answer is not known."""

NOT_HERE = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS})
"""Codes of a node on which this run is not."""

_ATTEMPTS = 10


class Pauser:
    """The pause path. `timeout` is seconds."""

    def __init__(self, nodes: Nodes, keeper: Keeper, catch_up: CatchUp, timeout: float) -> None:
        self._nodes = nodes
        self._keeper = keeper
        self._catch_up = catch_up
        self._timeout = timeout
        self._pausing: JointCalls[str, None] = JointCalls()

    async def pause(
        self, team: Team, sandbox_id: str, *, memory: bool, require_healthy_guest: bool
    ) -> None:
        """Answers when it is whole on disk; who comes while it goes on shares the result.

        Raises AlreadyPausedError, SandboxNotFoundError, and NodeUnavailableError or
        SnapshotFailedError, after which it runs on.
        """
        for _ in range(_ATTEMPTS):
            row = await self._catch_up.started(team.team_id, sandbox_id)
            if row.state is State.PAUSED:
                raise AlreadyPausedError(sandbox_id)
            if row.state not in (State.RUNNING, State.PAUSING):
                raise SandboxNotFoundError(sandbox_id)
            transition = await self._keeper.apply(row, PauseAsked(row.execution_id))
            if transition.after is State.PAUSING:
                pausing = replace(row, state=transition.after)
                await self._complete(pausing, memory, require_healthy_guest)
                return
        raise ConflictError(f"Sandbox {sandbox_id} keeps changing its state")

    async def finish(self, row: Sandbox) -> None:
        """Wait until a pause that somebody asked for is over. Raises as `pause`.

        One that nobody here follows is asked for again: the node joins that to the first.
        """
        await self._complete(row, memory=True, require_healthy_guest=False)

    async def close(self) -> None:
        """Stop waiting for nodes; reconciling goes on from what they say."""
        await self._pausing.close()

    async def _complete(self, row: Sandbox, memory: bool, require_healthy_guest: bool) -> None:
        request = pb.SandboxPauseRequest(
            sandbox_id=row.sandbox_id,
            execution_id=row.execution_id,
            filesystem_only=not memory,
            require_healthy_guest=require_healthy_guest,
        )
        await self._pausing.call(row.execution_id, lambda: self._pause(row, request))

    async def _pause(self, row: Sandbox, request: pb.SandboxPauseRequest) -> None:
        try:
            node = await self._nodes.get(row.node_id)
            kept = await node.pause(request, self._timeout)
        except NodeError as error:
            if error.sent and error.code in NOT_HERE and await self._paused_before(row):
                return
            raise await self._failed(row, error) from error
        event = Paused(row.execution_id, kept.paused_at.ToDatetime(UTC), kept.memory)
        transition = await self._keeper.settle(row, event)
        if transition.after not in VISIBLE:
            raise SandboxNotFoundError(row.sandbox_id)  # killed meanwhile

    async def _paused_before(self, row: Sandbox) -> bool:
        try:
            return await self._catch_up.paused_meanwhile(row)
        except NodeError:
            return False

    async def _failed(self, row: Sandbox, error: NodeError) -> ApiError:
        doing = f"pause sandbox {row.sandbox_id}"
        if error.sent and error.code in OUTCOME_UNKNOWN:
            # It stays "pausing": who asks again joins, and reconciling finds out.
            return NodeUnavailableError(doing, error.node, error.reason)
        await self._keeper.settle(row, PauseRefused(row.execution_id, error.reason))
        return snapshot_failure(row, doing, error)


def snapshot_failure(row: Sandbox, doing: str, error: NodeError) -> ApiError:
    """What the client hears of a sandbox that its node certainly did not write to disk."""
    if error.code in NOT_HERE:
        return SandboxNotFoundError(row.sandbox_id)
    if error.code is grpc.StatusCode.INTERNAL:
        return SnapshotFailedError(doing, error.node, error.reason)
    return NodeUnavailableError(doing, error.node, error.reason)
