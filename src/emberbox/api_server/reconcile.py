"""Keeps the records true: consumes the nodes' events, compares their lists, copies templates."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

import structlog

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server import metrics
from emberbox.api_server.catching_up import RUNNING
from emberbox.api_server.configuring import CLUSTER_METADATA
from emberbox.api_server.errors import NodeError
from emberbox.api_server.records.comparison import (
    Comparison,
    Findings,
    Inventory,
    Kept,
    Listed,
)
from emberbox.api_server.records.lifecycle import (
    LIVE,
    LeaseEnded,
    Lost,
    Paused,
    PauseRefused,
    Reported,
    Started,
    State,
)

if TYPE_CHECKING:
    from emberbox.api_server.catalog import Catalog
    from emberbox.api_server.checkpoints import Checkpoints
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import KnownNodes
    from emberbox.api_server.records.keeper import Keeper
    from emberbox.api_server.settings import Settings
    from emberbox.api_server.store import Sandbox, Store
    from emberbox.api_server.template_names import Templates

log = structlog.get_logger(__name__)

_OUTCOMES = {
    pb.OUTCOME_KILLED: State.KILLED,
    pb.OUTCOME_EXPIRED: State.EXPIRED,
    pb.OUTCOME_CRASHED: State.CRASHED,
}
_ORPHANS_A_PASS = 3
_PRUNE_EVERY = timedelta(hours=1)


class Reconciler:
    """What is done for a node in one pass, and for each of its events."""

    def __init__(
        self,
        *,
        store: Store,
        nodes: KnownNodes,
        keeper: Keeper,
        templates: Templates,
        checkpoints: Checkpoints,
        catalog: Catalog,
        settings: Settings,
        clock: Clock,
        cluster_id: str,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._keeper = keeper
        self._templates = templates
        self._checkpoints = checkpoints
        self._catalog = catalog
        self._settings = settings
        self._clock = clock
        self._cluster_id = cluster_id
        self._comparisons: dict[str, Comparison] = {}
        self._pruned = clock() - _PRUNE_EVERY

    async def follow_events(self, node: Node) -> None:
        """Apply and acknowledge a node's outcomes until its stream ends."""
        async with node.events() as events:
            async for event in events:
                await self._apply(event)
                # Only now: an outcome that is not written yet must come again.
                await node.acknowledge(event.number)

    async def check(self, node: Node) -> None:
        """One pass over a node. Any failure leaves every record as it is."""
        info = await node.refresh_info()
        await self._nodes.heard(info)
        rows = await self._store.sandboxes.live_on(info.node_id)
        found = await _inventory(node)
        findings = self._comparison(info.node_id).compare(rows, found, self._clock())
        await self._act(node, findings)
        await self._catalog.rebuild(_that_run(rows, found))
        await self._templates.sync(node)

    async def tidy(self) -> None:
        """Release what silent nodes held; remove builds that nobody needs; forget old history."""
        await self._nodes.refresh()
        await self._release()
        await self._checkpoints.sweep()
        metrics.set_sandboxes(await self._store.sandboxes.counts())
        now = self._clock()
        if now - self._pruned >= _PRUNE_EVERY:
            self._pruned = now
            old = now - timedelta(days=self._settings.history_days)
            await self._store.sandboxes.forget_ended(old)
            await self._store.events.forget(old)

    async def _release(self) -> None:
        """A node enforces its deadlines whether we hear of it or not: a deadline is a lease."""
        heard = {
            record.node_id
            for record in self._nodes.known()
            if self._nodes.silent_since(record.node_id) is None
        }
        grace = timedelta(seconds=self._settings.lease_grace)
        for row in await self._store.sandboxes.counted_elsewhere(heard):
            if self._clock() - row.end_at > grace:
                reason = f"its deadline passed while its host {row.node_id} was unreachable"
                event = LeaseEnded(row.execution_id, row.end_at, row.auto_pause, reason)
                await self._keeper.apply(row, event)

    async def _apply(self, event: pb.SandboxEvent) -> None:
        row = await self._store.sandboxes.get(event.sandbox_id)
        meaning = _meaning(event)
        if row is None or meaning is None:
            log.warning(
                "event of an unknown sandbox or kind",
                sandbox_id=event.sandbox_id,
                outcome=event.outcome,
            )
            return
        await self._keeper.apply(row, meaning)

    async def _act(self, node: Node, findings: Findings) -> None:
        for row in findings.started:
            await self._keeper.apply(row, Started(row.execution_id))
        for row, kept in findings.paused:
            await self._keeper.apply(row, Paused(row.execution_id, kept.at, kept.memory))
        for row in findings.still_running:
            reason = "its host was asked to pause it long ago, and it runs"
            await self._keeper.apply(row, PauseRefused(row.execution_id, reason))
        await self._lose(node, findings.lost)
        for row in findings.still_killing:
            await self._keeper.end(row)
        for one in findings.strangers:
            log.warning(
                "unknown sandbox on a node",
                node=node.name,
                sandbox_id=one.sandbox_id,
                execution_id=one.execution_id,
                of_this_cluster=one.cluster_id == self._cluster_id,
            )
        await self._settle_orphans(node, findings.orphans)

    async def _lose(self, node: Node, rows: list[Sandbox]) -> None:
        # Asked once more: one answer alone ends nobody's sandbox.
        found = await _inventory(node) if rows else Inventory()
        for row in rows:
            if not found.has(row):
                reason = f"lost: {node.name} does not have it any more"
                await self._keeper.apply(row, Lost(row.execution_id, reason))

    async def _settle_orphans(self, node: Node, orphans: list[Listed | Kept]) -> None:
        settled = 0
        for one in orphans:
            try:
                settled += await self._settle_orphan(node, one)
            except NodeError as error:
                log.warning("an orphan stays", sandbox_id=one.sandbox_id, reason=error.reason)
            if settled == _ORPHANS_A_PASS:
                return

    async def _settle_orphan(self, node: Node, one: Listed | Kept) -> bool:
        """Whether something was done: what is over is ended, and what nobody knows is kept."""
        row = await self._store.sandboxes.get(one.sandbox_id)
        if row is None:
            return isinstance(one, Listed) and await self._pause_orphan(node, one)
        if isinstance(one, Kept) and row.state is State.CRASHED:
            await self._keeper.apply(row, Paused(row.execution_id, one.at, one.memory))
            await self._store.sandboxes.relocate(row, node.name)
            return True
        if row.state in LIVE and (isinstance(one, Kept) or row.node_id == node.node_id):
            return False
        log.warning("ending an orphan", node=node.name, sandbox_id=one.sandbox_id)
        return await node.delete(one.sandbox_id, "over for the API server")

    async def _pause_orphan(self, node: Node, one: Listed) -> bool:
        log.warning("pausing an orphan", node=node.name, sandbox_id=one.sandbox_id)
        request = pb.SandboxPauseRequest(sandbox_id=one.sandbox_id, execution_id=one.execution_id)
        await node.pause(request, self._settings.pause_timeout)
        return True

    def _comparison(self, node_id: str) -> Comparison:
        settings = self._settings
        return self._comparisons.setdefault(
            node_id,
            Comparison(
                cluster_id=self._cluster_id,
                lost_grace=timedelta(seconds=settings.lost_grace),
                orphan_grace=timedelta(seconds=settings.orphan_grace),
                create_timeout=timedelta(
                    seconds=settings.create_timeout + settings.connect_timeout
                ),
                pause_timeout=timedelta(seconds=settings.pause_timeout + settings.connect_timeout),
            ),
        )


def _that_run(rows: list[Sandbox], found: Inventory) -> list[Sandbox]:
    running = {one.execution_id for one in found.running if one.running}
    return [row for row in rows if row.state is State.RUNNING and row.execution_id in running]


def _meaning(event: pb.SandboxEvent) -> Reported | Paused | None:
    if event.outcome == pb.OUTCOME_PAUSED:
        return Paused(event.execution_id, event.at.ToDatetime(UTC), reason=event.reason)
    outcome = _OUTCOMES.get(event.outcome)
    return None if outcome is None else Reported(event.execution_id, outcome, event.reason)


async def _inventory(node: Node) -> Inventory:
    running = tuple(_listed(one) for one in await node.sandboxes())
    return Inventory(running, tuple(_kept(one) for one in await node.paused()))


def _kept(one: pb.PausedSandbox) -> Kept:
    return Kept(
        sandbox_id=one.sandbox_id,
        execution_id=one.execution_id,
        at=one.paused_at.ToDatetime(UTC),
        memory=one.memory,
        cluster_id=one.metadata.get(CLUSTER_METADATA, ""),
    )


def _listed(one: pb.RunningSandbox) -> Listed:
    return Listed(
        sandbox_id=one.sandbox_id,
        execution_id=one.execution_id,
        running=one.state == RUNNING,
        cluster_id=one.metadata.get(CLUSTER_METADATA, ""),
    )
