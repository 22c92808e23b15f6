"""Template references of clients, and how they are resolved."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from emberbox.api_server.errors import (
    BadRequestError,
    NoCapacityError,
    NodeError,
    TemplateNotFoundError,
)
from emberbox.api_server.nodes import not_ready_reason
from emberbox.api_server.store.rows import DEFAULT_TAG, Template

if TYPE_CHECKING:
    from datetime import datetime

    from emberbox.api_server.clock import Clock
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.store.builds import BuildStore
    from emberbox.api_server.store.rows import Build, Team
    from emberbox.api_server.store.templates import TemplateStore

_REFERENCE = re.compile(r"(?P<name>(?:[a-z0-9_-]+/)?[a-z0-9_-]+)(?::(?P<tag>[a-z0-9_.-]+))?\Z")
_NOT_OF_NAMES = re.compile(r"[^a-z0-9_-]")
_REMEMBERED = timedelta(seconds=3)
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class TemplateReference:
    """`[namespace/]name[:tag]` or an id; lower-cased (protocol 2.7). No tag: the default one."""

    name: str
    tag: str | None

    @classmethod
    def parse(cls, text: str) -> TemplateReference:
        """Raises BadRequestError."""
        match = _REFERENCE.match(text.lower())
        if match is None:
            raise BadRequestError(
                f"Invalid template reference: {text!r} is not [namespace/]name[:tag]"
            )
        return cls(match["name"], match["tag"])

    def names(self, team: Team) -> tuple[str, ...]:
        """What it may be called in the database: without a namespace it may be the team's own."""
        if "/" in self.name:
            return (self.name,)
        return (self.name, f"{namespace(team)}/{self.name}")


def namespace(team: Team) -> str:
    """What stands before the slash in the names of a team's own templates."""
    return _NOT_OF_NAMES.sub("-", team.name.lower())


def of_build(template: Template, build: Build) -> Template:
    """The template as this build of it."""
    return replace(
        template,
        build_id=build.build_id,
        vcpu=build.vcpu,
        ram_mb=build.ram_mb,
        disk_mb=build.disk_mb,
        envd_version=build.envd_version,
        node_id=build.node_id,
        memory=build.memory,
    )


class Templates:
    """The templates of the database, kept as the nodes say."""

    def __init__(
        self, store: TemplateStore, builds: BuildStore, nodes: Nodes, clock: Clock
    ) -> None:
        self._store = store
        self._builds = builds
        self._nodes = nodes
        self._clock = clock
        self._seen: dict[str, list[Template]] = {}
        self._remembered: dict[tuple[str, ...], tuple[datetime, Template]] = {}

    async def resolve(self, text: str, team: Team) -> Template:
        """The template meant, as the build that its tag means.

        Raises BadRequestError, TemplateNotFoundError, and NoCapacityError while it cannot be
        known because a node is away or still making its images.
        """
        reference = TemplateReference.parse(text)
        found = self._recall(reference, team)
        if found is None:
            found = await self._look_up(reference, team)
            self._remember(reference, team, found)
        return await self._tagged(found, reference)

    async def find(self, reference: TemplateReference, team: Team) -> Template | None:
        """By name or id, from the database alone and whatever the tag."""
        return await self._store.find(reference.names(team), team.team_id)

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
            self._remembered.clear()

    def _recall(self, reference: TemplateReference, team: Team) -> Template | None:
        entry = self._remembered.get((team.team_id, *reference.names(team)))
        return None if entry is None or entry[0] <= self._clock() else entry[1]

    def _remember(self, reference: TemplateReference, team: Team, found: Template) -> None:
        """Built-in ones alone: they change with their node, which says so when it is asked for
        one that it has no more."""
        if found.team_id is not None:
            return
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        key = (team.team_id, *reference.names(team))
        self._remembered[key] = (self._clock() + _REMEMBERED, found)

    async def _look_up(self, reference: TemplateReference, team: Team) -> Template:
        found = await self.find(reference, team)
        if found is None:
            reasons = await self._ask_nodes()
            found = await self.find(reference, team)
            if found is None:
                raise NoCapacityError(reasons) if reasons else TemplateNotFoundError(reference.name)
        return found

    async def _tagged(self, template: Template, reference: TemplateReference) -> Template:
        if template.team_id is None:
            if reference.tag not in (None, DEFAULT_TAG):
                raise TemplateNotFoundError(reference.name, reference.tag)
            return template
        build = await self._builds.tagged(template.template_id, reference.tag or DEFAULT_TAG)
        if build is None:
            raise TemplateNotFoundError(reference.name, reference.tag)
        return of_build(template, build)

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
