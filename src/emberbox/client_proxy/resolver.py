"""The client proxy's decision: read the sandbox out of the request, find its host."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

from emberbox.client_proxy.catalog import Place
from emberbox.proxying import replies
from emberbox.proxying.auto_resume import PATIENCE, Traffic, still_changing
from emberbox.proxying.errors import BadRouteError, NoRouteError
from emberbox.proxying.replies import Reply
from emberbox.proxying.resolving import Target
from emberbox.proxying.routing import (
    SandboxAddress,
    address_of,
    cleaned_path,
    is_control_route,
)
from emberbox.proxying.signed_urls import HEADER_SIGNED_URL_FROM, has_signed_url, refused_query
from emberbox.shared.addresses import parse_address
from emberbox.shared.protocol import ENVD_PORT, HEADER_INTERNAL_SECRET

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from emberbox.client_proxy.catalog import Catalog
    from emberbox.proxying.auto_resume import Resumer
    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.resolving import Decision, Finder

_UNNAMED = SandboxAddress("", ENVD_PORT)


class EdgeResolver:
    """Sends requests to the data proxies of hosts, over kept connections.

    The engine drops every X-Emberbox-* field of a client before it adds `extra`.
    """

    def __init__(
        self, catalog: Catalog, internal_secret: str, resumer: Resumer | None = None
    ) -> None:
        """Without `resumer` a sandbox that the catalog does not have is not found."""
        self._catalog = catalog
        self._finder = self if catalog.only_host() is None else None
        self._resumer = resumer
        self._extra = f"{HEADER_INTERNAL_SECRET}: {internal_secret}\r\n".encode("ascii")

    def resolve(self, request: RequestHead, peer: str) -> Decision | Awaitable[Decision]:
        """Decide at once when the sandbox's host is known."""
        try:
            sandbox = address_of(*request.fields.routing)
        except NoRouteError as error:
            if has_signed_url(request):
                return self._signed(request, peer)
            return Reply(400, text=error.text)
        except BadRouteError as error:
            return Reply(400, text=error.text)
        if sandbox.port == ENVD_PORT and is_control_route(request.target):
            return replies.control_route_closed(cleaned_path(request.target))
        host = self._catalog.find(sandbox.sandbox_id)
        if host is None:
            return self._look_up(request, sandbox)
        return self._target(host, sandbox)

    async def find_elsewhere(self, request: RequestHead, refused: Target) -> Decision:
        """Ask the catalog again, and the API server when that knows nothing else."""
        sandbox = SandboxAddress(refused.sandbox_id, refused.sandbox_port)
        self._catalog.doubt(sandbox.sandbox_id)
        host = await self._catalog.look_up(sandbox.sandbox_id)
        if host is not None and self._target(host, sandbox) != refused:
            return self._target(host, sandbox)
        decision = await self._resumed(request, sandbox)
        return replies.not_found(sandbox.sandbox_id) if decision == refused else decision

    async def _look_up(self, request: RequestHead, sandbox: SandboxAddress) -> Decision:
        host = await self._catalog.look_up(sandbox.sandbox_id)
        if host is not None:
            return self._target(host, sandbox)
        return await self._resumed(request, sandbox)

    async def _resumed(self, request: RequestHead, sandbox: SandboxAddress) -> Decision:
        if self._resumer is None:
            return replies.not_found(sandbox.sandbox_id)
        return await self._resume(self._resumer, Traffic.of(request, sandbox), sandbox)

    async def _resume(
        self, resumer: Resumer, traffic: Traffic, sandbox: SandboxAddress
    ) -> Decision:
        try:
            async with asyncio.timeout(PATIENCE):
                resumed = await resumer.resume(traffic)
        except TimeoutError:
            return still_changing(traffic)
        if isinstance(resumed, Reply):
            return resumed
        if not resumed.data_address:
            return replies.host_unreachable(sandbox.sandbox_id)
        host = Place(*parse_address(resumed.data_address), resumed.execution_id)
        self._catalog.learn(sandbox.sandbox_id, host)
        return self._target(host, sandbox)

    def _target(self, host: Place, sandbox: SandboxAddress) -> Target:
        return _target(host, sandbox, self._extra, self._finder)

    def unreachable(self, target: Target) -> Reply:
        """The host is away, which says nothing about the sandbox."""
        self._catalog.doubt(target.sandbox_id)
        return replies.host_unreachable(target.sandbox_id)

    def _signed(self, request: RequestHead, peer: str) -> Decision:
        """Let the one host there is find the sandbox."""
        refused = refused_query(request)
        if refused is not None:
            return refused
        host = self._catalog.only_host()
        if host is None:
            return replies.signed_url_names_no_sandbox()
        mark = f"{HEADER_SIGNED_URL_FROM}: {peer}\r\n".encode("ascii", "replace")
        return _target(host, _UNNAMED, self._extra + mark)


@lru_cache(maxsize=4096)
def _target(
    host: Place, sandbox: SandboxAddress, extra: bytes, finder: Finder | None = None
) -> Target:
    return Target(
        address=host.address,
        port=host.port,
        sandbox_id=sandbox.sandbox_id,
        sandbox_port=sandbox.port,
        execution_id=host.execution_id,
        pool_key=(host.address, host.port),
        extra=extra,
        finder=finder,
    )
