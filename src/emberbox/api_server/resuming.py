"""Resuming: a paused sandbox goes on as another run, on the host that has it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from emberbox.api_server.errors import (
    ApiError,
    ConflictError,
    CreateFailedError,
    NoCapacityError,
    NodeError,
    NodeFullError,
    NodeUnavailableError,
    PlacementTimeoutError,
    SandboxNotFoundError,
)
from emberbox.api_server.pausing import OUTCOME_UNKNOWN
from emberbox.api_server.records.lifecycle import (
    SHOWN_RUNNING,
    VISIBLE,
    ResumeFailed,
    Started,
    State,
)
from emberbox.shared.joining import JointCalls

if TYPE_CHECKING:
    from emberbox.api_server.catalog import Catalog
    from emberbox.api_server.catching_up import CatchUp
    from emberbox.api_server.configuring import Configurer
    from emberbox.api_server.living import Living
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.pausing import Pauser
    from emberbox.api_server.records.keeper import Keeper
    from emberbox.api_server.store.rows import Sandbox, Team
    from emberbox.api_server.store.sandboxes import SandboxStore

_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Connected:
    """A sandbox that runs."""

    sandbox: Sandbox
    resumed: bool
    """Whether it was paused when it was asked for."""


class Resumer:
    """The way of a paused sandbox back. `timeout` is seconds."""

    def __init__(
        self,
        *,
        store: SandboxStore,
        nodes: Nodes,
        keeper: Keeper,
        living: Living,
        pauser: Pauser,
        catch_up: CatchUp,
        configurer: Configurer,
        catalog: Catalog,
        timeout: float,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._keeper = keeper
        self._living = living
        self._pauser = pauser
        self._catch_up = catch_up
        self._configurer = configurer
        self._catalog = catalog
        self._timeout = timeout
        self._resuming: JointCalls[str, Sandbox] = JointCalls()

    async def connect(
        self,
        team: Team,
        sandbox_id: str,
        seconds: int,
        *,
        memory: bool = True,
        auto_pause: bool | None = None,
    ) -> Connected:
        """Make it run for `seconds` at least; without `memory` a paused one boots from its files.

        `auto_pause` changes what a paused one does at its next deadline. Waits out a pause.
        Raises SandboxNotFoundError, QuotaExceededError, ConflictError, and NoCapacityError and
        others when its host cannot resume it: then it stays paused.
        """
        for _ in range(_ATTEMPTS):
            row = await self._store.own(team.team_id, sandbox_id)
            if row.state is State.PAUSING:
                await self._wait_out(row)
            elif row.state in (State.PAUSED, State.RESUMING):
                resumed = await self._resume(team, row, seconds, memory, auto_pause)
                if resumed is not None:
                    return Connected(resumed, resumed=True)
            elif row.state not in SHOWN_RUNNING:
                raise SandboxNotFoundError(sandbox_id)
            else:
                extended = await self._extend(team, row, seconds)
                if extended is not None:
                    return Connected(extended, resumed=False)
        raise ConflictError(f"Sandbox {sandbox_id} keeps changing its state")

    async def resume(
        self, team: Team, sandbox_id: str, seconds: int, auto_pause: bool | None
    ) -> Sandbox:
        """For old SDKs. Raises ConflictError when it runs, and else as `connect`."""
        row = await self._store.own(team.team_id, sandbox_id)
        if row.state in (State.CREATING, State.RUNNING):
            raise ConflictError(f"Sandbox {sandbox_id} is already running")
        connected = await self.connect(team, sandbox_id, seconds, auto_pause=auto_pause)
        return connected.sandbox

    async def close(self) -> None:
        """Stop waiting for nodes; reconciling goes on from what they say."""
        await self._resuming.close()

    async def _wait_out(self, row: Sandbox) -> None:
        try:
            await self._pauser.finish(row)
        except ApiError:
            current = await self._store.own(row.team_id, row.sandbox_id)
            if current.state is State.PAUSING:
                raise
            # It runs on, or is over: the record says which.

    async def _extend(self, team: Team, row: Sandbox, seconds: int) -> Sandbox | None:
        """None when its deadline came first and paused it."""
        try:
            return await self._living.extend(team, row.sandbox_id, seconds)
        except SandboxNotFoundError:
            try:
                if await self._catch_up.paused_meanwhile(row):
                    return None
            except NodeError as error:
                doing = f"connect to sandbox {row.sandbox_id}"
                raise NodeUnavailableError(doing, error.node, error.reason) from error
            raise

    async def _resume(
        self, team: Team, row: Sandbox, seconds: int, memory: bool, auto_pause: bool | None
    ) -> Sandbox | None:
        """None when `row` is out of date."""
        if row.state is State.RESUMING:
            # Its node joins this to the call that began it, whoever sent that.
            await self._start(row, memory)
            return await self._living.extend(team, row.sandbox_id, seconds)
        life = timedelta(seconds=seconds)
        try:
            node = await self._nodes.resume_on(row)
            there = replace(row, node_id=node.name)
            begun = await self._keeper.resume(there, life, auto_pause=auto_pause)
        except NodeError as error:
            raise NoCapacityError([(error.node, error.reason)]) from error
        except NodeFullError as error:
            raise NoCapacityError([(node.name, str(error))]) from error
        if begun is None:
            return None
        try:
            return await self._start(begun, memory)
        except ApiError:
            await self._send_back(begun, row)
            raise

    async def _send_back(self, begun: Sandbox, row: Sandbox) -> None:
        """When another node was to resume it and never took its files, they are where they were."""
        if begun.node_id == row.node_id:
            return
        with contextlib.suppress(NodeError):
            node = await self._nodes.get(begun.node_id)
            if any(one.sandbox_id == row.sandbox_id for one in await node.paused()):
                return
        await self._store.relocate(begun, row.node_id)

    async def _start(self, row: Sandbox, memory: bool) -> Sandbox:
        return await self._resuming.call(row.execution_id, lambda: self._call_node(row, memory))

    async def _call_node(self, row: Sandbox, memory: bool) -> Sandbox:
        boot = row.boots_when_resumed or not memory
        try:
            node = await self._nodes.get(row.node_id)
            config = self._configurer.resumed(row)
            answer = await node.create(config, row.end_at, self._timeout, boot=boot)
        except NodeError as error:
            raise await self._failed(row, error) from error
        await self._catalog.put(row)
        transition = await self._keeper.settle(row, Started(row.execution_id))
        if transition.after not in VISIBLE:
            raise SandboxNotFoundError(row.sandbox_id)  # killed meanwhile
        self._keeper.note(row, answer.notice)
        return row

    async def _failed(self, row: Sandbox, error: NodeError) -> ApiError:
        doing = f"resume sandbox {row.sandbox_id}"
        if error.sent and error.code in OUTCOME_UNKNOWN:
            # It stays "resuming": who asks again joins, and reconciling finds out.
            if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                return PlacementTimeoutError(error.node, f"no answer within {self._timeout:g} s")
            return NodeUnavailableError(doing, error.node, error.reason)
        if error.code is grpc.StatusCode.INTERNAL:
            await self._is_as_it_was(row)
            return CreateFailedError(error.node, error.reason)
        transition = await self._keeper.settle(row, ResumeFailed(row.execution_id, error.reason))
        if transition.after is not State.PAUSED or error.code is grpc.StatusCode.NOT_FOUND:
            return SandboxNotFoundError(row.sandbox_id)
        if error.code in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION):
            return ConflictError(f"Failed to {doing}: {error.node}: {error.reason}")
        return NoCapacityError([(error.node, error.reason)], error.retry_after)

    async def _is_as_it_was(self, row: Sandbox) -> None:
        with contextlib.suppress(NodeError):  # then its outbox or its lists will say so
            await self._catch_up.paused_meanwhile(row)
