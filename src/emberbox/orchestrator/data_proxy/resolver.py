"""The data proxy's decision: is the caller ours, does the sandbox run here, may it be reached."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from emberbox.orchestrator.data_proxy.failures import FailureLimit
from emberbox.orchestrator.data_proxy.signatures import Signature
from emberbox.proxying import replies
from emberbox.proxying.auto_resume import PATIENCE, Traffic, still_changing
from emberbox.proxying.errors import BadRouteError
from emberbox.proxying.replies import Reply
from emberbox.proxying.resolving import Target
from emberbox.proxying.routing import (
    SandboxAddress,
    address_of,
    cleaned_path,
    is_control_route,
    is_envd,
)
from emberbox.proxying.signed_urls import HEADER_SIGNED_URL_FROM
from emberbox.shared import internal_secret
from emberbox.shared.protocol import (
    ENVD_PORT,
    HEADER_INTERNAL_SECRET,
    HEADER_TRAFFIC_TOKEN,
    MASKED_PORT,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from emberbox.orchestrator.data_proxy.messages import Route
    from emberbox.orchestrator.data_proxy.table import RouteTable
    from emberbox.proxying.auto_resume import Resumer
    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.resolving import Decision

_SECRET = HEADER_INTERNAL_SECRET.lower().encode("ascii")
_TOKEN = HEADER_TRAFFIC_TOKEN.lower().encode("ascii")
_SIGNED_URL_FROM = HEADER_SIGNED_URL_FROM.lower().encode("ascii")


class Freshness(Protocol):
    """Knows whether the table lags behind what the orchestrator said."""

    @property
    def behind(self) -> bool:
        """Whether a newer table is on its way."""
        ...

    async def catch_up(self) -> None:
        """Wait for it, for a bounded time."""
        ...


class HostResolver:
    """Routes over the table. Only envd's connections are kept, under the execution's id.

    A user's port gets a fresh connection for each request, as in E2B: what listens there may be
    replaced at any time. envd gets no upgrades: it has none, and in a tunnel its control routes
    would be open.
    """

    def __init__(
        self,
        table: RouteTable,
        secret: str,
        freshness: Freshness | None = None,
        resumer: Resumer | None = None,
    ) -> None:
        """Must be made in an event loop.

        Without `freshness` the table is never behind; without `resumer` nothing is resumed.
        """
        self._table = table
        self._secret = secret
        self._freshness = freshness
        self._resumer = resumer
        self._failures = FailureLimit(asyncio.get_running_loop().time)

    def resolve(self, request: RequestHead, peer: str) -> Decision | Awaitable[Decision]:
        """Decide at once, as the table is in memory, unless a newer one is on its way or the
        sandbox may have to be resumed first."""
        if not internal_secret.matches(request.get(_SECRET), self._secret):
            return replies.internal_only()
        if self._freshness is not None and self._freshness.behind:
            return self._decide_later(request)
        return self._decide(request)

    async def _decide_later(self, request: RequestHead) -> Decision:
        await self._catch_up()
        decision = self._decide(request)
        return await decision if inspect.isawaitable(decision) else decision

    async def _catch_up(self) -> None:
        if self._freshness is not None and self._freshness.behind:
            await self._freshness.catch_up()

    def _decide(self, request: RequestHead) -> Decision | Awaitable[Decision]:
        client = request.get(_SIGNED_URL_FROM)
        if client is not None:
            return self._find_signer(request, client.decode("latin-1"))
        try:
            sandbox = address_of(*request.fields.routing)
        except BadRouteError as error:
            return Reply(400, text=error.text)
        if is_envd(sandbox) and is_control_route(request.target):
            return replies.control_route_closed(cleaned_path(request.target))
        route = self._table.get(sandbox.sandbox_id)
        if route is not None:
            return _closed_to(request, sandbox, route) or _target(sandbox, route)
        if self._resumer is None:
            return _marked(replies.not_found(sandbox.sandbox_id), sandbox)
        return self._decide_resumed(self._resumer, request, sandbox)

    async def _decide_resumed(
        self, resumer: Resumer, request: RequestHead, sandbox: SandboxAddress
    ) -> Decision:
        traffic = Traffic.of(request, sandbox)
        try:
            async with asyncio.timeout(PATIENCE):
                decided = await self._resume(resumer, traffic)
        except TimeoutError:
            return still_changing(traffic)
        if isinstance(decided, Reply):
            return _marked(decided, sandbox)
        return _closed_to(request, sandbox, decided) or _target(sandbox, decided)

    async def _resume(self, resumer: Resumer, traffic: Traffic) -> Route | Reply:
        """Until it is in the table, or the API server names a run twice that is not: the news of
        that run's end are still on their way."""
        named: set[str] = set()
        while True:
            resumed = await resumer.resume(traffic)
            if isinstance(resumed, Reply):
                return resumed
            await self._catch_up()
            route = self._table.get(traffic.sandbox_id)
            if route is not None:
                return route
            if resumed.execution_id in named:
                return replies.not_found(traffic.sandbox_id)
            named.add(resumed.execution_id)

    def _find_signer(self, request: RequestHead, client: str) -> Decision:
        """Failures are limited, not tries: a right signature is served whatever came before."""
        signature = Signature.of(request)
        route = signature.find_signer(self._table) if signature is not None else None
        if route is not None:
            return _target(SandboxAddress(route.sandbox_id, ENVD_PORT), route)
        wait = self._failures.failed(client)
        return replies.signature_limited(wait) if wait else replies.signature_invalid()

    def unreachable(self, target: Target) -> Reply:
        """The sandbox runs, but nothing behind the port answers."""
        return replies.port_closed(target.sandbox_id, target.sandbox_port)


def _marked(reply: Reply, sandbox: SandboxAddress) -> Reply:
    """With our mark when another host may have the sandbox, for all that is known here."""
    name = sandbox.sandbox_id
    absent = reply in (replies.not_found(name), replies.nobody_resumes(name))
    return replace(reply, not_here=True) if absent else reply


def _closed_to(request: RequestHead, sandbox: SandboxAddress, route: Route) -> Reply | None:
    if route.traffic_token is None or is_envd(sandbox):
        return None
    presented = request.get(_TOKEN)
    if not presented:
        return replies.traffic_token_missing(sandbox.sandbox_id)
    if not internal_secret.matches(presented, route.traffic_token):
        return replies.traffic_token_invalid(sandbox.sandbox_id)
    return None


def _target(sandbox: SandboxAddress, route: Route) -> Target:
    envd = is_envd(sandbox)
    masked = None if envd or route.mask_host is None else _masked(route.mask_host, sandbox.port)
    return Target(
        address=route.address,
        port=sandbox.port,
        sandbox_id=sandbox.sandbox_id,
        sandbox_port=sandbox.port,
        execution_id=route.execution_id,
        pool_key=(route.execution_id, sandbox.port) if envd else None,
        allow_upgrade=not envd,
        host=masked,
        tls=sandbox.port in route.https_ports,
    )


def _masked(mask: str, port: int) -> bytes:
    return mask.replace(MASKED_PORT, str(port)).encode("ascii")
