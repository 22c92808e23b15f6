"""What can be asked of a sandbox that lives: look, extend, shorten, change its network, end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import grpc

from emberbox.api_server import acting
from emberbox.api_server.errors import (
    ConflictError,
    NodeError,
    NodeUnavailableError,
    SandboxNotFoundError,
    SandboxNotRunningError,
)
from emberbox.api_server.networks import egress_config, with_egress
from emberbox.api_server.records import history
from emberbox.api_server.records.history import What
from emberbox.api_server.records.lifecycle import SHOWN_RUNNING, VISIBLE, KillAsked, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from emberbox.api_server.catching_up import CatchUp
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.models import NetworkUpdate
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.records.keeper import Keeper
    from emberbox.api_server.store.rows import Sandbox, Team
    from emberbox.api_server.store.sandboxes import SandboxStore

_GONE = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        # Another run of it is there.
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)


class Living:
    """Sandboxes of teams; another team's sandbox is answered like one that never was."""

    def __init__(
        self,
        store: SandboxStore,
        nodes: Nodes,
        keeper: Keeper,
        catch_up: CatchUp,
        clock: Clock,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._keeper = keeper
        self._catch_up = catch_up
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, team: Team, sandbox_id: str) -> Sandbox:
        """A sandbox that clients see. Raises SandboxNotFoundError."""
        row = await self._store.own(team.team_id, sandbox_id)
        if row.state not in VISIBLE:
            raise SandboxNotFoundError(sandbox_id)
        return row

    async def set_timeout(self, team: Team, sandbox_id: str, seconds: int) -> Sandbox:
        """Let it end that many seconds from now, sooner or later than before."""
        return await self._set_deadline(team, sandbox_id, seconds, lambda _old, new: new)

    async def extend(self, team: Team, sandbox_id: str, seconds: int) -> Sandbox:
        """Let it live that many seconds from now at least."""
        return await self._set_deadline(team, sandbox_id, seconds, max)

    async def kill(self, team: Team, sandbox_id: str) -> None:
        """End it; callers at once share the result.

        Raises SandboxNotFoundError, and NodeUnavailableError when its host does not confirm.
        """
        while True:
            row = await self._store.own(team.team_id, sandbox_id)
            if row.state not in VISIBLE and row.state is not State.KILLING:
                raise SandboxNotFoundError(sandbox_id)
            try:
                reason = f"killed by request of {acting.described(acting.current())}"
                event = KillAsked(row.execution_id, reason)
                transition = await self._keeper.apply(row, event, wait=True)
            except NodeError as error:
                # The row stays "killing": reconciling goes on asking the node.
                raise NodeUnavailableError(
                    f"kill sandbox {sandbox_id}", error.node, error.reason
                ) from error
            if transition.after is State.KILLING:
                return
            # It ended, or began another run, since it was looked up: what is it now?

    async def update_network(self, team: Team, sandbox_id: str, update: NetworkUpdate) -> None:
        """Replace what it may reach, as checked before.

        Raises SandboxNotFoundError, SandboxNotRunningError, ConflictError and NodeUnavailableError.
        """
        lock = self._locks.setdefault(sandbox_id, asyncio.Lock())
        async with lock:  # what is written last must be what its host was told last
            row = await self._running(team, sandbox_id)
            egress = egress_config(update, update.allow_internet_access)
            doing = f"change the network of sandbox {sandbox_id}"
            await self._tell_node(
                row, doing, lambda node: node.set_egress(sandbox_id, row.execution_id, egress)
            )
            changed = replace(
                row,
                options=with_egress(row.options, update),
                allow_internet_access=update.allow_internet_access,
            )
            entry = history.entry(row, What.UPDATED, self._clock(), changed="network")
            await self._store.set_egress(changed, entry)

    async def _running(self, team: Team, sandbox_id: str) -> Sandbox:
        row = await self._catch_up.started(team.team_id, sandbox_id)
        if row.state is State.PAUSED:
            raise SandboxNotRunningError(sandbox_id)
        if row.state is State.PAUSING:
            raise ConflictError(f"Sandbox {sandbox_id} is being paused: connect to it first")
        if row.state is not State.RUNNING:
            raise SandboxNotFoundError(sandbox_id)
        return row

    async def _set_deadline(
        self,
        team: Team,
        sandbox_id: str,
        seconds: int,
        choose: Callable[[datetime, datetime], datetime],
    ) -> Sandbox:
        lock = self._locks.setdefault(sandbox_id, asyncio.Lock())
        async with lock:  # two that extend at once must not undo one another
            row = await self.get(team, sandbox_id)
            if row.state not in SHOWN_RUNNING:
                raise SandboxNotFoundError(sandbox_id)
            end_at = choose(row.end_at, self._clock() + timedelta(seconds=seconds))
            longest = team.limits.max_length_hours
            if longest is not None:
                end_at = min(end_at, row.started_at + timedelta(hours=longest))
            doing = f"set the timeout of sandbox {sandbox_id}"
            await self._tell_node(
                row, doing, lambda node: node.set_deadline(sandbox_id, row.execution_id, end_at)
            )
            entry = history.entry(row, What.UPDATED, self._clock(), end_at=end_at.isoformat())
            await self._store.set_deadline(sandbox_id, row.execution_id, end_at, entry)
        return row

    async def _tell_node(
        self, row: Sandbox, doing: str, tell: Callable[[Node], Awaitable[None]]
    ) -> None:
        try:
            await tell(await self._nodes.get(row.node_id))
        except NodeError as error:
            if error.code in _GONE:
                raise SandboxNotFoundError(row.sandbox_id) from error
            raise NodeUnavailableError(doing, error.node, error.reason) from error
