"""Learning at once what a node did by itself, instead of waiting for its word."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import TYPE_CHECKING

from emberbox.api_server.errors import ConflictError
from emberbox.api_server.records.lifecycle import SHOWN_RUNNING, Paused, State

if TYPE_CHECKING:
    from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.records.keeper import Keeper
    from emberbox.api_server.store.rows import Sandbox
    from emberbox.api_server.store.sandboxes import SandboxStore

RUNNING = "running"
"""How a node calls a sandbox that neither starts nor ends."""

_AGAIN_AFTER = 0.02


class CatchUp:
    """Waits for states that others write. `patience` is seconds."""

    def __init__(self, store: SandboxStore, nodes: Nodes, keeper: Keeper, patience: float) -> None:
        self._store = store
        self._nodes = nodes
        self._keeper = keeper
        self._patience = patience

    async def started(self, team_id: str, sandbox_id: str) -> Sandbox:
        """The record as soon as no start of it goes on.

        "Running" is written after the answer, so its caller may be here before. Raises
        SandboxNotFoundError, and ConflictError when it takes too long.
        """
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    row = await self._store.own(team_id, sandbox_id)
                    if row.state is State.RUNNING or row.state not in SHOWN_RUNNING:
                        return row
                    await asyncio.sleep(_AGAIN_AFTER)
        except TimeoutError as error:
            raise ConflictError(f"Sandbox {sandbox_id} is still starting") from error

    async def paused_meanwhile(self, row: Sandbox) -> bool:
        """Whether its node has it on disk, where the record says that it runs or is resumed.

        If so that is written. Waits while its node is busy with it. Raises NodeError.
        """
        node = await self._nodes.get(row.node_id)
        found = await self._on_disk(node, row.sandbox_id)
        if found is not None:
            await self._keeper.apply(row, paused_event(row, found))
        return found is not None

    async def _on_disk(self, node: Node, sandbox_id: str) -> pb.PausedSandbox | None:
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            # In this order: one whose pause ends between the two questions is in both answers.
            states = [one.state for one in await node.sandboxes() if one.sandbox_id == sandbox_id]
            if not states:
                kept = {one.sandbox_id: one for one in await node.paused()}
                return kept.get(sandbox_id)
            if RUNNING in states or asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(_AGAIN_AFTER)


def paused_event(row: Sandbox, found: pb.PausedSandbox) -> Paused:
    """What a node's list says of a record: the run it names may be the one before a resume that
    failed."""
    return Paused(row.execution_id, found.paused_at.ToDatetime(UTC), found.memory)
