"""Resuming by traffic: who may, and for how long it then lives (protocol 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.api_server.errors import ApiError, NodeError, SandboxNotFoundError
from emberbox.api_server.records.lifecycle import VISIBLE, State
from emberbox.shared.internal_secret import matches
from emberbox.shared.protocol import ENVD_PORT

if TYPE_CHECKING:
    from emberbox.api_server.catching_up import CatchUp
    from emberbox.api_server.resuming import Resumer
    from emberbox.api_server.store import Store
    from emberbox.api_server.store.rows import Limits, Sandbox
    from emberbox.api_server.tokens import SandboxTokens

_SHORTEST_LIFE = 300
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has come for a sandbox; tokens as they were presented."""

    sandbox_id: str
    port: int
    traffic_token: str
    envd_token: str


class TrafficRefusedError(ApiError):
    """The sandbox is private, and the right token was not presented."""

    status = 403

    def __init__(self) -> None:
        super().__init__(
            "This sandbox can't be resumed with the credentials provided. "
            "Check your access token and try again."
        )


class AutoResumer:
    """The decision that proxies ask for."""

    def __init__(
        self, store: Store, resumer: Resumer, catch_up: CatchUp, tokens: SandboxTokens
    ) -> None:
        self._store = store
        self._resumer = resumer
        self._catch_up = catch_up
        self._tokens = tokens

    async def resume(self, traffic: Traffic) -> Sandbox:
        """The sandbox, running. A proxy that asks for one that runs has not heard of that yet.

        Raises SandboxNotFoundError, TrafficRefusedError, and what `Resumer.connect`
        raises.
        """
        row = await self._store.sandboxes.get(traffic.sandbox_id)
        if row is None:
            raise SandboxNotFoundError(traffic.sandbox_id)
        if row.state is State.RESUMING:
            row = await self._catch_up.started(row.team_id, row.sandbox_id)
        if row.state in (State.CREATING, State.RUNNING):
            if not await self._paused_meanwhile(row):
                return row
            row = await self._store.sandboxes.own(row.team_id, row.sandbox_id)
        if not _may_be_resumed(row):
            raise SandboxNotFoundError(row.sandbox_id)
        if not self._is_let_in(row, traffic):
            raise TrafficRefusedError
        team = await self._store.teams.find(row.team_id)
        if team is None:
            raise SandboxNotFoundError(row.sandbox_id)
        seconds = _life(row, team.limits)
        return (await self._resumer.connect(team, row.sandbox_id, seconds)).sandbox

    async def _paused_meanwhile(self, row: Sandbox) -> bool:
        try:
            return await self._catch_up.paused_meanwhile(row)
        except NodeError:
            # The proxy may reach its host where we do not.
            return False

    def _is_let_in(self, row: Sandbox, traffic: Traffic) -> bool:
        if row.public_traffic:
            return True
        if traffic.port != ENVD_PORT:
            return matches(traffic.traffic_token, self._tokens.traffic(row.sandbox_id))
        return not row.secure or matches(traffic.envd_token, self._tokens.envd(row.sandbox_id))


def _may_be_resumed(row: Sandbox) -> bool:
    if row.state is State.PAUSED and row.boots_when_resumed:
        return False
    return row.auto_resume and row.state in VISIBLE


def _life(row: Sandbox, limits: Limits) -> int:
    seconds = max(row.timeout, _SHORTEST_LIFE)
    hours = limits.max_length_hours
    return seconds if hours is None else min(seconds, hours * 3600)
