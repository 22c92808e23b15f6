"""The hosts as this API server knows them: who there is, who is silent, who takes a sandbox.

A node says that it is there (`heard`), or is on a list of the settings and is asked. Either way
its word goes into the database, and from there every API server learns of it.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import grpc
import structlog

from emberbox.api_server.errors import (
    BadRequestError,
    DatabaseUnavailableError,
    NoCapacityError,
    NodeError,
)
from emberbox.api_server.placement import Candidate, PlacementRequest, choose
from emberbox.api_server.store.rows import NodeRecord, NodeUsage
from emberbox.shared.joining import JointCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.node import Node
    from emberbox.api_server.store import Store
    from emberbox.api_server.store.rows import NodeTemplate, Sandbox

log = structlog.get_logger(__name__)

_UNLIMITED = 2**31 - 1


class Nodes(Protocol):
    """The hosts as the control plane knows them."""

    async def pick(self, request: PlacementRequest) -> Node:
        """A node that is connected, ready and has not refused. Raises NoCapacityError."""
        ...

    async def find(self, node_id: str) -> Node | None:
        """The node of this id; None when there is none."""
        ...

    async def get(self, node_id: str) -> Node:
        """The same. Raises NodeError, with `sent` False, when there is none."""
        ...

    async def resume_on(self, row: Sandbox) -> Node:
        """The node that has a paused sandbox, or one that reaches its files when that one does not
        take it. Raises NodeError, with `sent` False."""
        ...

    def all(self) -> Sequence[Node]:
        """Every node, met or not."""
        ...

    def templates_of(self, node: Node) -> Mapping[str, NodeTemplate]:
        """What a node has of the built-in ones, as far as is known, by their ids."""
        ...

    def note_templates(self, node: Node, templates: Mapping[str, NodeTemplate]) -> None:
        """It has these now."""
        ...


class KnownNodes:
    """The nodes of the database, and those of a fixed list that were not met yet."""

    def __init__(
        self,
        store: Store,
        connect: Callable[[str], Node],
        addresses: Iterable[str],
        *,
        clock: Clock,
        silent_after: timedelta,
    ) -> None:
        self._store = store
        self._connect = connect
        self._listed = {address: connect(address) for address in addresses}
        self._clock = clock
        self._silent_after = silent_after
        self._known: dict[str, Candidate] = {}
        self._read_at: datetime | None = None
        self._blind = False
        self._seeing_since = datetime.min.replace(tzinfo=UTC)
        self._refreshing: JointCalls[str, None] = JointCalls()
        self._draw = random.Random()  # noqa: S311 - spreads load, guards nothing

    async def pick(self, request: PlacementRequest) -> Node:
        """The least used of a few nodes that fit. Raises NoCapacityError with every reason."""
        if self._read_at is None:
            await self.refresh()
        full: dict[str, str] = {}
        for last in (False, True):
            while (found := choose(self._known.values(), request, full, self._draw)) is not None:
                try:
                    await found.node.connected()
                except NodeError as error:
                    request.refuse(found.record.node_id, error.reason)
                else:
                    found.add(request)
                    return found.node
            if not last:  # what is known may be some seconds old
                await self.refresh()
        none = request.no_capacity({**self._unmet(), **full})
        log.warning("no node takes a sandbox", refusals=dict(none.refusals))
        raise none

    async def find(self, node_id: str) -> Node | None:
        """The node of this id; what the database has is read anew when it is not known."""
        if node_id not in self._known:
            await self.refresh()
        found = self._known.get(node_id)
        return found.node if found else None

    async def get(self, node_id: str) -> Node:
        """The same. Raises NodeError, with `sent` False, when there is none."""
        node = await self.find(node_id)
        if node is None:
            unavailable, reason = grpc.StatusCode.UNAVAILABLE, "the host is not connected"
            raise NodeError(node_id, unavailable, reason, sent=False)
        return node

    async def resume_on(self, row: Sandbox) -> Node:
        """Its own node has its memory in its page cache, so another one only takes it when that
        one is silent or draining. Raises NodeError, with `sent` False."""
        node = await self.get(row.node_id)
        home = self._known[row.node_id]
        if not (home.silent or home.record.draining) or not home.record.shared_directory:
            return node
        request = PlacementRequest(
            row.template_id,
            row.vcpu,
            row.ram_mb,
            row.disk_mb,
            shared_with=home.record.shared_directory,
        )
        try:
            return await self.pick(request)
        except NoCapacityError:
            return node

    def all(self) -> Sequence[Node]:
        """Every node, those of the list first."""
        listed = list(self._listed.values())
        return [*listed, *(one.node for one in self._known.values() if one.node not in listed)]

    def known(self) -> list[NodeRecord]:
        """The records, as they were read last."""
        return [one.record for one in self._known.values()]

    def data_address(self, node_id: str) -> str | None:
        """Where its data proxy is reached; None when there is no such node."""
        found = self._known.get(node_id)
        return found.record.data_address if found else None

    def templates_of(self, node: Node) -> Mapping[str, NodeTemplate]:
        """What it has of the built-in ones, as far as is known."""
        found = self._known.get(node.name)
        return found.templates if found else {}

    def note_templates(self, node: Node, templates: Mapping[str, NodeTemplate]) -> None:
        """It has these now; the database knows already."""
        if node.name in self._known:
            self._known[node.name].templates = templates

    def silent_since(self, node_id: str) -> datetime | None:
        """When a node was heard for the last time, if that is too long ago."""
        found = self._known.get(node_id)
        return found.record.seen_at if found and found.silent else None

    async def heard(self, info: pb.ServiceInfoResponse) -> NodeRecord:
        """A node is there, and says this of itself. Raises BadRequestError and ApiError."""
        record = self._record(info)
        known = await self._store.nodes.get(record.node_id)
        if known is not None and self._contradicts(record, known):
            raise BadRequestError(
                f"node id {record.node_id!r} is in use at {known.address}: set EMBERBOX_NODE_ID"
            )
        if await self._store.nodes.put(record):
            log.info("a node is new", node=record.node_id, address=record.address)
        return replace(record, draining=known is not None and known.draining)

    async def refresh(self) -> None:
        """Read anew who there is. Callers at once share one reading. Raises ApiError."""
        await self._refreshing.call("refresh", self._refresh)

    async def close(self) -> None:
        """End the connections."""
        await self._refreshing.close()
        await asyncio.gather(*(node.close() for node in self.all()))

    async def _refresh(self) -> None:
        await asyncio.gather(*(self._meet(node) for node in self._listed.values()))
        try:
            records = await self._store.nodes.all()
            usage = await self._store.nodes.usage()
            templates = await self._store.templates.by_node()
        except DatabaseUnavailableError:
            self._blind = True
            raise
        now = self._clock()
        if self._blind:
            # Nobody's word was written down meanwhile: silence begins anew.
            self._blind, self._seeing_since = False, now
        self._read_at = now
        gone = [one.node for one in self._known.values() if one.node.address not in self._listed]
        self._known = {record.node_id: self._candidate(record) for record in records}
        for node_id, one in self._known.items():
            one.usage = usage.get(node_id, NodeUsage())
            one.templates = templates.get(node_id, {})
        kept = [one.node for one in self._known.values()]
        await asyncio.gather(*(node.close() for node in gone if node not in kept))

    async def _meet(self, node: Node) -> None:
        """Ask a node of the list that was not met yet, or was not ready."""
        known = self._known.get(node.name)
        if known is None or not known.record.ready:
            with suppress(NodeError):
                await self.heard(await node.refresh_info())

    def _candidate(self, record: NodeRecord) -> Candidate:
        known = self._known.get(record.node_id)
        node = known.node if known and known.node.address == record.address else None
        listed = (one for one in self._listed.values() if one.node_id == record.node_id)
        node = next(listed, None) or node or self._connect(record.address)
        node.node_id = record.node_id
        return Candidate(node, record, silent=self._silence(record))

    def _silence(self, record: NodeRecord) -> str | None:
        if not self._is_silent(record):
            return None
        seconds = (self._clock() - record.seen_at).total_seconds()
        return f"nothing was heard of it for {seconds:.0f} s"

    def _is_silent(self, record: NodeRecord) -> bool:
        last = max(record.seen_at, self._seeing_since)
        return self._clock() - last > self._silent_after

    def _contradicts(self, record: NodeRecord, known: NodeRecord) -> bool:
        """Whether two hosts speak with one id. What the list of the settings says goes first."""
        elsewhere = known.address != record.address and record.address not in self._listed
        return elsewhere and not self._is_silent(known)

    def _unmet(self) -> dict[str, str]:
        """Nodes of the list that never answered."""
        return {
            node.name: f"the orchestrator does not answer at {node.address}"
            for node in self._listed.values()
            if node.node_id not in self._known
        }

    def _record(self, info: pb.ServiceInfoResponse) -> NodeRecord:
        """Raises BadRequestError."""
        now = self._clock()
        address = next(
            (at for at, node in self._listed.items() if node.node_id == info.node_id), info.address
        )
        if not info.node_id or not address:
            raise BadRequestError("a node needs an id and an address")
        return NodeRecord(
            node_id=info.node_id[:128],
            address=address,
            data_address=info.data_address,
            labels=dict(info.labels),
            version=info.version[:32],
            driver=info.driver[:32],
            accelerator=info.accelerator[:32],
            cpu_model=info.cpu_model[:128],
            cpu_count=info.cpu_count,
            cpu_used=info.cpu_used,
            memory_total_mb=info.memory_total_mb,
            memory_available_mb=info.memory_available_mb,
            disk_available_mb=info.disk_available_mb,
            max_sandboxes=info.max_sandboxes if info.HasField("max_sandboxes") else _UNLIMITED,
            max_ram_mb=info.max_ram_mb if info.HasField("max_ram_mb") else _UNLIMITED,
            shared_directory=info.shared_directory,
            ready=info.ready,
            status=info.status[:512],
            registered_at=now,
            seen_at=now,
        )
