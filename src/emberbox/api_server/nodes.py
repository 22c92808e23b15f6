"""Which orchestrators there are and which of them takes a sandbox."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import grpc

from emberbox.api_server.errors import NoCapacityError, NodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emberbox.api_server.node import Node


@dataclass(slots=True)
class PlacementRequest:
    """What a sandbox needs (MiB), and which nodes have refused it already, with their reasons."""

    template_id: str
    vcpu: int
    ram_mb: int
    disk_mb: int
    only_on: str | None = None
    """The one node that has the build."""
    refusals: dict[str, str] = field(default_factory=dict)
    retry_after: int | None = None
    """Seconds after which the first of the nodes that said so may have room."""

    def refuse(self, node: Node, reason: str, retry_after: int | None = None) -> None:
        """Remember why a node will not do; it is not picked again for this request."""
        self.refusals[node.name] = reason
        if retry_after is not None:
            self.retry_after = min(retry_after, self.retry_after or retry_after)

    def no_capacity(self) -> NoCapacityError:
        """The error that names every reason."""
        return NoCapacityError(list(self.refusals.items()), self.retry_after)


class Nodes(Protocol):
    """The hosts as the control plane knows them."""

    async def pick(self, request: PlacementRequest) -> Node:
        """A node that is connected, ready and has not refused. Raises NoCapacityError."""
        ...

    async def find(self, node_id: str) -> Node | None:
        """The node that gave itself this id; None when none that answers did."""
        ...

    async def get(self, node_id: str) -> Node:
        """The same. Raises NodeError, with `sent` False, when none did."""
        ...

    def all(self) -> Sequence[Node]:
        """Every node, met or not."""
        ...


class StaticNodes:
    """The nodes of a fixed list of addresses."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = tuple(nodes)
        self._picked: dict[str, int] = {}

    async def pick(self, request: PlacementRequest) -> Node:
        """The ready node that was picked least often."""
        for node in sorted(self._nodes, key=lambda node: self._picked.get(node.address, 0)):
            if node.name in request.refusals:
                continue
            refusal = await _why_not(node, request.only_on)
            if refusal is None:
                self._picked[node.address] = self._picked.get(node.address, 0) + 1
                return node
            request.refuse(node, refusal)
        raise request.no_capacity()

    async def find(self, node_id: str) -> Node | None:
        """The node that gave itself this id; those not met yet are asked for theirs."""
        found = self._met(node_id)
        if found is None:
            unmet = [node for node in self._nodes if node.info is None]
            await asyncio.gather(*(_meet(node) for node in unmet))
            found = self._met(node_id)
        return found

    async def get(self, node_id: str) -> Node:
        """The same. Raises NodeError, with `sent` False, when none did."""
        node = await self.find(node_id)
        if node is None:
            unavailable, reason = grpc.StatusCode.UNAVAILABLE, "the host is not connected"
            raise NodeError(node_id, unavailable, reason, sent=False)
        return node

    def all(self) -> Sequence[Node]:
        """Every node of the list."""
        return self._nodes

    def _met(self, node_id: str) -> Node | None:
        return next((node for node in self._nodes if node.node_id == node_id), None)

    async def close(self) -> None:
        """End the connections."""
        await asyncio.gather(*(node.close() for node in self._nodes))


async def _meet(node: Node) -> None:
    with suppress(NodeError):
        await node.refresh_info()


async def _why_not(node: Node, only_on: str | None) -> str | None:
    try:
        await node.connected()
        if node.info is None or not node.info.ready:
            await node.refresh_info()
    except NodeError as error:
        return error.reason
    if node.info is None or not node.info.ready:
        return not_ready_reason(node)
    if only_on not in (None, node.node_id):
        return f"the snapshot is on {only_on}"
    return None


def not_ready_reason(node: Node) -> str:
    """Why a node that answers takes no sandbox yet."""
    return (node.info.status if node.info else "") or "not ready: its images are being made"
