"""Snapshots: named or not, listed, deleted (protocol 2.5)."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import TYPE_CHECKING

from emberbox.api_server.errors import (
    BadRequestError,
    SandboxNotFoundError,
    SandboxNotRunningError,
    TemplateNotFoundError,
)
from emberbox.api_server.records.lifecycle import SHOWN_PAUSED, State
from emberbox.api_server.store.rows import DEFAULT_TAG, Snapshot
from emberbox.api_server.template_names import TemplateReference, namespace

if TYPE_CHECKING:
    from emberbox.api_server.background import Background
    from emberbox.api_server.catching_up import CatchUp
    from emberbox.api_server.checkpoints import Checkpoints
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.store import Store
    from emberbox.api_server.store.rows import Team
    from emberbox.api_server.store.snapshots import Place
    from emberbox.api_server.template_names import Templates

_SEPARATOR = "__"
_LONGEST_NAME = 128


class Snapshots:
    """The snapshots of teams."""

    def __init__(
        self,
        *,
        store: Store,
        templates: Templates,
        checkpoints: Checkpoints,
        catch_up: CatchUp,
        background: Background,
        clock: Clock,
    ) -> None:
        self._store = store
        self._templates = templates
        self._checkpoints = checkpoints
        self._catch_up = catch_up
        self._background = background
        self._clock = clock

    async def create(
        self, team: Team, sandbox_id: str, *, name: str | None, memory: bool
    ) -> Snapshot:
        """Of a sandbox that runs on. The same name again: another build of the same snapshot.

        Raises BadRequestError, SandboxNotFoundError, SandboxNotRunningError, and what
        `Checkpoints.make` raises.
        """
        full_name, tag = _own_name(name, team) if name else (None, DEFAULT_TAG)
        row = await self._catch_up.started(team.team_id, sandbox_id)
        if row.state in SHOWN_PAUSED:
            raise SandboxNotRunningError(sandbox_id)
        if row.state is not State.RUNNING:
            raise SandboxNotFoundError(sandbox_id)
        build = await self._checkpoints.make(row, memory=memory, name=full_name)
        now = self._clock()
        await self._store.builds.finish(build, full_name, tag, now)
        return Snapshot(build.template_id, full_name, tag, now)

    async def page(
        self,
        team: Team,
        *,
        limit: int,
        next_token: str | None,
        sandbox_id: str | None,
        name: str | None,
    ) -> tuple[list[Snapshot], str | None]:
        """Newest first, and the token of the next page, if there is one. Raises BadRequestError."""
        full_name, tag = None, None
        if name:
            reference = TemplateReference.parse(name)
            full_name, tag = reference.names(team)[-1], reference.tag
        found = await self._store.snapshots.page(
            team.team_id,
            limit=limit + 1,
            after=_decode_cursor(next_token) if next_token else None,
            origin_sandbox_id=sandbox_id,
            name=full_name,
            tag=tag,
        )
        if len(found) <= limit:
            return found, None
        return found[:limit], _encode_cursor(found[limit - 1])

    async def delete(self, team: Team, text: str) -> None:
        """By id or name, one tag or without it all. Its files go in the background.

        Raises TemplateNotFoundError, and BadRequestError while sandboxes use it.
        """
        reference = TemplateReference.parse(text)
        template = await self._templates.find(reference, team)
        if template is None:
            raise TemplateNotFoundError(reference.name)
        if template.team_id is None:
            raise BadRequestError(f"template '{reference.name}' is built in: it stays")
        deleted = await self._store.snapshots.delete(template.template_id, reference.tag)
        if deleted is None:
            raise TemplateNotFoundError(reference.name, reference.tag)
        if not deleted:
            raise BadRequestError(
                f"Snapshot '{text}' is used by sandboxes, running or paused: kill them first"
            )
        self._background.start(self._checkpoints.sweep(), "sweep of builds")


def _own_name(text: str, team: Team) -> tuple[str, str]:
    """The name with its namespace, and the tag. Raises BadRequestError."""
    reference = TemplateReference.parse(text)
    name = reference.names(team)[-1]
    if name.partition("/")[0] != namespace(team):
        raise BadRequestError(f"name: {text!r} is not in your team's namespace {namespace(team)!r}")
    tag = reference.tag or DEFAULT_TAG
    if max(len(name), len(tag)) > _LONGEST_NAME:
        raise BadRequestError(f"name: longer than {_LONGEST_NAME} characters")
    return name, tag


def _encode_cursor(last: Snapshot) -> str:
    parts = (last.created_at.isoformat(), last.template_id, last.tag)
    return base64.urlsafe_b64encode(_SEPARATOR.join(parts).encode()).decode()


def _decode_cursor(token: str) -> Place:
    """Raises BadRequestError when it is not one of ours."""
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
        made, template_id, tag = text.split(_SEPARATOR, 2)
        moment = datetime.fromisoformat(made)
    except (ValueError, binascii.Error) as error:
        raise BadRequestError("Invalid next token") from error
    if moment.tzinfo is None:
        raise BadRequestError("Invalid next token")
    return moment, template_id, tag
