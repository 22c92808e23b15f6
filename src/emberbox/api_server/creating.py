"""Making a sandbox: reserve, place, start; nothing leaks whatever is lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import structlog

from emberbox.api_server.errors import (
    ApiError,
    ConflictError,
    CreateFailedError,
    IdempotencyKeyReusedError,
    NoCapacityError,
    NodeError,
    NodeFullError,
    NodeUnavailableError,
    PlacementTimeoutError,
    TemplateNotFoundError,
)
from emberbox.api_server.placement import PlacementRequest
from emberbox.api_server.records import history
from emberbox.api_server.records.history import What
from emberbox.api_server.records.lifecycle import OutcomeUnknown, Refused, Started, State
from emberbox.api_server.store.rows import Sandbox
from emberbox.shared import correlation
from emberbox.shared.ids import new_run_id, new_sandbox_id

if TYPE_CHECKING:
    from emberbox.api_server.catalog import Catalog
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.configuring import Configurer
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.records.history import Entry
    from emberbox.api_server.records.keeper import Keeper
    from emberbox.api_server.settings import Settings
    from emberbox.api_server.store.rows import Team, Template
    from emberbox.api_server.store.sandboxes import SandboxStore
    from emberbox.api_server.template_names import Templates
    from emberbox.api_server.wanted import WantedSandbox
    from emberbox.shared.steps import Steps

log = structlog.get_logger(__name__)

_NOTHING_MADE = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Answers that a node gives before it makes anything."""

_NOTHING_LEFT = _NOTHING_MADE | {grpc.StatusCode.INTERNAL}
"""Answers after which nothing of the sandbox runs on that node: another one may try."""

_MOST_FAILURES = 3
"""Nodes that may try a sandbox and fail; those that refuse it do not count."""

_JOIN_EVERY = 0.05
_NO_RETRY = {"Should-Retry": "false"}
_CONSOLE_LINES = 10
_CONSOLE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Start:
    """A reservation, and what it is for."""

    row: Sandbox
    team: Team
    template: Template
    wanted: WantedSandbox
    request: PlacementRequest
    steps: Steps


class Creator:
    """The create path. One SQL write is awaited: the reservation."""

    def __init__(
        self,
        *,
        store: SandboxStore,
        nodes: Nodes,
        keeper: Keeper,
        templates: Templates,
        configurer: Configurer,
        catalog: Catalog,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._keeper = keeper
        self._templates = templates
        self._configurer = configurer
        self._catalog = catalog
        self._settings = settings
        self._clock = clock

    async def create(self, team: Team, wanted: WantedSandbox, steps: Steps) -> Sandbox:
        """Answers when the sandbox runs; `steps` gets what took how long. Raises ApiError."""
        while True:
            with steps.measure("template"):
                template = await self._templates.resolve(wanted.template, team)
            made = await self.create_of(team, template, wanted, steps)
            if made is not None:
                return made

    async def create_of(
        self, team: Team, template: Template, wanted: WantedSandbox, steps: Steps
    ) -> Sandbox | None:
        """The same of a certain build; None when `wanted` must be resolved again, because
        the build is not there any more or the idempotency key was freed."""
        request = PlacementRequest(
            template.template_id,
            template.vcpu,
            template.ram_mb,
            template.disk_mb,
            only_on=template.node_id,
            built_in=template.team_id is None,
            labels=team.node_labels,
        )
        while True:
            with steps.measure("place"):
                node = await self._nodes.pick(request)
            of_node = self._templates.on_node(template, node)
            row = self._reservation(team, of_node, wanted, node)
            try:
                with steps.measure("reserve"):
                    holder = await self._store.reserve(row, history.created(row))
            except NodeFullError as error:
                request.refuse(node.name, str(error))
            else:
                break
        if holder is not None:
            with steps.measure("join"):
                return await self._join(holder, row)
        correlation.bind(sandbox_id=row.sandbox_id)
        return await self._start(_Start(row, team, of_node, wanted, request, steps), node)

    def _reservation(
        self, team: Team, template: Template, wanted: WantedSandbox, node: Node
    ) -> Sandbox:
        now = self._clock()
        return Sandbox(
            sandbox_id=new_sandbox_id(),
            team_id=team.team_id,
            execution_id=new_run_id(),
            node_id=node.name,
            state=State.CREATING,
            template_id=template.template_id,
            template_name=template.alias,
            build_id=template.build_id,
            vcpu=template.vcpu,
            ram_mb=template.ram_mb,
            disk_mb=template.disk_mb,
            envd_version=template.envd_version,
            secure=wanted.secure,
            allow_internet_access=wanted.allow_internet_access,
            public_traffic=wanted.public_traffic,
            options=wanted.options,
            metadata=wanted.metadata,
            started_at=now,
            end_at=now + timedelta(seconds=wanted.timeout),
            timeout=wanted.timeout,
            auto_pause=wanted.auto_pause,
            auto_pause_memory=wanted.auto_pause_memory,
            auto_resume=wanted.auto_resume,
            shown_template_id=wanted.shown_template_id,
            idempotency_key=wanted.idempotency_key,
            request_hash=wanted.fingerprint() if wanted.idempotency_key else None,
        )

    async def _start(self, start: _Start, node: Node) -> Sandbox | None:
        """The sandbox; None when its template was built anew, so that it must be asked for again.
        Raises ApiError."""
        while True:
            try:
                return await self._create_on(start, node)
            except NodeError as error:
                if error.code is grpc.StatusCode.NOT_FOUND and await self._changed(start, node):
                    row = start.row
                    reason = f"its template was built anew meanwhile: {error.reason}"
                    await self._keeper.settle(row, Refused(row.execution_id, reason))
                    return None
                start.request.refuse(node.name, _refusal(error), error.retry_after)
                start, node = await self._elsewhere(start, node, error)

    async def _create_on(self, start: _Start, node: Node) -> Sandbox:
        """Raises NodeError when another node may do, and ApiError."""
        row, boot = start.row, not start.template.memory
        config = self._configurer.created(row, start.wanted.env_vars)
        try:
            with start.steps.measure("host"):
                answer = await node.create(config, row.end_at, self._create_timeout, boot=boot)
        except NodeError as error:
            if not error.sent or error.code in _NOTHING_LEFT:
                raise
            raise await self._give_up(row, error) from error
        start.steps.add("host", ((s.name, s.milliseconds) for s in answer.steps))
        await self._catalog.put(row)
        self._keeper.settle_later(row, Started(row.execution_id))
        self._keeper.note(row, answer.notice)
        return row

    async def _changed(self, start: _Start, node: Node) -> bool:
        """Whether the template is another build now than the one that was asked for, or gone.

        Nodes are asked for their templates every few seconds; one that just started with a new
        version of the guest has replaced its build since.
        """
        with contextlib.suppress(NodeError):
            await self._templates.sync(node)
        try:
            now = await self._templates.resolve(start.wanted.template, start.team)
        except TemplateNotFoundError:
            return True
        return self._templates.on_node(now, node).build_id != start.template.build_id

    async def _elsewhere(self, start: _Start, node: Node, error: NodeError) -> tuple[_Start, Node]:
        """Point the reservation at another node than `node`. Raises ApiError when none is left."""
        row, request = start.row, start.request
        log.warning("placement refused", sandbox_id=row.sandbox_id, refusals=request.refusals)
        failed = error.sent and error.code not in _NOTHING_MADE
        request.failed += failed
        while True:
            try:
                if request.failed == _MOST_FAILURES:
                    raise request.no_capacity({})
                other = await self._nodes.pick(request)
                template = self._templates.on_node(start.template, other)
                moved = _moved(row, template, other)
                if not await self._store.move(row, moved, self._told_of_move(moved, request)):
                    # Somebody killed it meanwhile; nothing of it is on any node.
                    raise request.no_capacity({})
            except NodeFullError as full:
                request.refuse(other.name, str(full))
            except NoCapacityError as none:
                if failed:
                    raise await self._give_up(row, error) from error
                await self._keeper.settle(row, Refused(row.execution_id, none.message))
                raise
            else:
                if failed:
                    self._keeper.clean_up(row, node)
                return replace(start, row=moved, template=template), other

    def _told_of_move(self, moved: Sandbox, request: PlacementRequest) -> Entry:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in request.refusals.items())
        return history.entry(moved, What.MOVED, self._clock(), reasons)

    async def _give_up(self, row: Sandbox, error: NodeError) -> ApiError:
        """What the client hears when nobody knows whether the sandbox runs. The reservation
        stays until the node confirms that there is nothing."""
        log.error("create failed", sandbox_id=row.sandbox_id, node=error.node, reason=error.reason)
        reason, _, console = error.reason.partition("\n")
        await self._keeper.settle(row, OutcomeUnknown(row.execution_id, reason))
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            limit = f"no answer within {self._create_timeout:g} s"
            return PlacementTimeoutError(error.node, limit)
        if error.code is grpc.StatusCode.UNAVAILABLE:
            lost = NodeUnavailableError("place sandbox", error.node, f"connection lost ({reason})")
            lost.headers = _NO_RETRY
            return lost
        return CreateFailedError(error.node, reason + _shown(console))

    async def _join(self, holder: Sandbox, row: Sandbox) -> Sandbox | None:
        """The sandbox that the same idempotency key made; None when that failed and freed it."""
        if holder.request_hash != row.request_hash:
            raise IdempotencyKeyReusedError
        current: Sandbox | None = holder
        try:
            async with asyncio.timeout(self._create_timeout):
                while current is not None and current.state is State.CREATING:
                    await asyncio.sleep(_JOIN_EVERY)
                    current = await self._store.get(holder.sandbox_id)
        except TimeoutError as error:
            raise ConflictError(
                "The sandbox of this Idempotency-Key is still being created"
            ) from error
        if current is None or current.idempotency_key is None:
            return None
        return current

    @property
    def _create_timeout(self) -> float:
        return self._settings.create_timeout


def _shown(console: str) -> str:
    """The end of a guest's console for a person: whoever asked may not reach the host's logs."""
    printed = console.removeprefix("console:\n").splitlines()[-_CONSOLE_LINES:]
    lines = ["".join(filter(str.isprintable, line)) for line in printed]
    tail = "\n".join(lines).encode()[-_CONSOLE_BYTES:].decode(errors="ignore")
    return f"\nthe end of its console:\n{tail}" if tail else ""


def _moved(row: Sandbox, template: Template, node: Node) -> Sandbox:
    return replace(
        row,
        node_id=node.name,
        execution_id=new_run_id(),
        build_id=template.build_id,
        vcpu=template.vcpu,
        ram_mb=template.ram_mb,
        disk_mb=template.disk_mb,
        envd_version=template.envd_version,
    )


def _refusal(error: NodeError) -> str:
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        return "it has another internal secret (EMBERBOX_INTERNAL_SECRET_FILE)"
    return error.reason
