"""Template references of clients, and how they are resolved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.api_server.errors import (
    BadRequestError,
    NoCapacityError,
    NodeError,
    TemplateNotFoundError,
)
from emberbox.api_server.nodes import not_ready_reason
from emberbox.api_server.store.rows import Template

if TYPE_CHECKING:
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.store.templates import TemplateStore

_REFERENCE = re.compile(r"(?P<name>(?:[a-z0-9_-]+/)?[a-z0-9_-]+)(?::(?P<tag>[a-z0-9_.-]+))?\Z")
_DEFAULT_TAG = "default"


@dataclass(frozen=True, slots=True)
class TemplateReference:
    """`[namespace/]name[:tag]` or an id; lower-cased (protocol 2.7)."""

    name: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> TemplateReference:
        """Raises BadRequestError."""
        match = _REFERENCE.match(text.lower())
        if match is None:
            raise BadRequestError(
                f"Invalid template reference: {text!r} is not [namespace/]name[:tag]"
            )
        return cls(match["name"], match["tag"] or _DEFAULT_TAG)


class Templates:
    """The templates of the database, kept as the nodes say."""

    def __init__(self, store: TemplateStore, nodes: Nodes, clock: Clock) -> None:
        self._store = store
        self._nodes = nodes
        self._clock = clock
        self._seen: dict[str, list[Template]] = {}

    async def resolve(self, text: str, team_id: str) -> Template:
        """The template meant.

        Raises BadRequestError, TemplateNotFoundError, and NoCapacityError while it cannot be
        known because a node is away or still making its images.
        """
        reference = TemplateReference.parse(text)
        found = await self.find(reference.name, team_id)
        if found is None:
            reasons = await self._ask_nodes()
            found = await self.find(reference.name, team_id)
            if found is None:
                raise NoCapacityError(reasons) if reasons else TemplateNotFoundError(reference.name)
        if reference.tag != _DEFAULT_TAG:
            raise TemplateNotFoundError(reference.name, reference.tag)
        return found

    async def find(self, name: str, team_id: str) -> Template | None:
        """By name or id, from the database alone."""
        return await self._store.find(name, team_id)

    async def sync(self, node: Node) -> None:
        """Record what a node has. Raises NodeError."""
        found = [
            Template(
                template_id=one.template_id,
                build_id=one.build_id,
                names=tuple(one.names),
                vcpu=one.vcpu,
                ram_mb=one.ram_mb,
                disk_mb=one.disk_mb,
                envd_version=one.envd_version,
            )
            for one in await node.templates()
        ]
        if found != self._seen.get(node.address):
            await self._store.put_built_in(found, self._clock())
            self._seen[node.address] = found

    async def _ask_nodes(self) -> list[tuple[str, str]]:
        reasons = []
        for node in self._nodes.all():
            try:
                info = await node.refresh_info()
                await self.sync(node)
            except NodeError as error:
                reasons.append((error.node, error.reason))
                continue
            if not info.ready:
                reasons.append((node.name, not_ready_reason(node)))
        return reasons
