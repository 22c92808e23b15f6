"""Forks: one checkpoint of a running sandbox, many children (protocol 2.5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from emberbox.api_server.errors import (
    ApiError,
    ConflictError,
    SandboxNotFoundError,
    TemplateNotFoundError,
)
from emberbox.api_server.records.lifecycle import SHOWN_PAUSED, State
from emberbox.api_server.store.rows import Template
from emberbox.api_server.wanted import WantedSandbox
from emberbox.shared.steps import Steps

if TYPE_CHECKING:
    from emberbox.api_server.catching_up import CatchUp
    from emberbox.api_server.checkpoints import Checkpoints
    from emberbox.api_server.creating import Creator
    from emberbox.api_server.store.builds import BuildStore
    from emberbox.api_server.store.rows import Build, Sandbox, Team

log = structlog.get_logger(__name__)


class Forker:
    """The fork path."""

    def __init__(
        self,
        builds: BuildStore,
        creator: Creator,
        checkpoints: Checkpoints,
        catch_up: CatchUp,
    ) -> None:
        self._builds = builds
        self._creator = creator
        self._checkpoints = checkpoints
        self._catch_up = catch_up

    async def fork(
        self, team: Team, sandbox_id: str, seconds: int, count: int
    ) -> list[Sandbox | ApiError]:
        """So many children that go on from where the sandbox is; it runs on itself.

        A child has its own id and token, and what else was set when its parent was created. Each
        succeeds or fails alone. Raises ConflictError when it is paused, SandboxNotFoundError, and
        what `Checkpoints.make` raises.
        """
        parent = await self._catch_up.started(team.team_id, sandbox_id)
        if parent.state in SHOWN_PAUSED:
            raise ConflictError(f"Sandbox {sandbox_id} is paused: connect to it before a fork")
        if parent.state is not State.RUNNING:
            raise SandboxNotFoundError(sandbox_id)
        build = await self._checkpoints.make(parent)
        try:
            child = self._child(team, parent, build, seconds)
            return await asyncio.gather(*(self._start(team, *child) for _ in range(count)))
        finally:
            await self._builds.release(build)

    def _child(
        self, team: Team, parent: Sandbox, build: Build, seconds: int
    ) -> tuple[Template, WantedSandbox]:
        template = Template(
            template_id=build.template_id,
            build_id=build.build_id,
            names=(parent.template_name,) if parent.template_name else (),
            vcpu=build.vcpu,
            ram_mb=build.ram_mb,
            disk_mb=build.disk_mb,
            envd_version=build.envd_version,
            team_id=team.team_id,
            node_id=build.node_id,
        )
        return template, WantedSandbox(
            template=build.template_id,
            timeout=seconds,
            secure=parent.secure,
            metadata=parent.metadata,
            allow_internet_access=parent.allow_internet_access,
            public_traffic=parent.public_traffic,
            options=parent.options,
            auto_pause=parent.auto_pause,
            auto_pause_memory=parent.auto_pause_memory,
            auto_resume=parent.auto_resume,
            shown_template_id=parent.shown_template_id or parent.template_id,
        )

    async def _start(
        self, team: Team, template: Template, wanted: WantedSandbox
    ) -> Sandbox | ApiError:
        try:
            made = await self._creator.create_of(team, template, wanted, Steps())
        except ApiError as error:
            return error
        except Exception:
            log.exception("a fork failed", template_id=template.template_id)
            return ApiError("Internal server error: the API server's log has the reason")
        return made or TemplateNotFoundError(wanted.template)
