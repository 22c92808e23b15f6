"""All that the routes stand on, wired once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from emberbox.api_server.auth import Authenticator
from emberbox.api_server.background import Background
from emberbox.api_server.clock import Clock, utc_now
from emberbox.api_server.creating import Creator
from emberbox.api_server.living import Living
from emberbox.api_server.node import Node
from emberbox.api_server.nodes import StaticNodes
from emberbox.api_server.presenting import Presenter
from emberbox.api_server.reconcile import Reconciler
from emberbox.api_server.records.keeper import Keeper
from emberbox.api_server.telemetry import Telemetry
from emberbox.api_server.template_names import Templates
from emberbox.api_server.tokens import SandboxTokens

if TYPE_CHECKING:
    from emberbox.api_server.settings import Settings
    from emberbox.api_server.store import Store

_PATIENCE = 5.0
"""Seconds that background work may take when the server ends."""


@dataclass(frozen=True, slots=True)
class Services:
    """One API server's parts."""

    settings: Settings
    store: Store
    nodes: StaticNodes
    background: Background
    authenticator: Authenticator
    templates: Templates
    creator: Creator
    living: Living
    telemetry: Telemetry
    presenter: Presenter
    reconciler: Reconciler

    @classmethod
    async def wire(
        cls, settings: Settings, store: Store, secret: str, clock: Clock = utc_now
    ) -> Self:
        """Make the parts; nothing runs yet. `secret` is shown to the orchestrators."""
        nodes = StaticNodes(
            Node(
                address,
                secret,
                connect_timeout=settings.connect_timeout,
                call_timeout=settings.call_timeout,
            )
            for address in settings.orchestrator_addresses
        )
        cluster_id = await store.cluster.cluster_id()
        tokens = SandboxTokens(await store.cluster.token_seed())
        background = Background()
        keeper = Keeper(store.sandboxes, nodes, background, clock)
        templates = Templates(store.templates, nodes, clock)
        return cls(
            settings=settings,
            store=store,
            nodes=nodes,
            background=background,
            authenticator=Authenticator(store.keys, background, clock),
            templates=templates,
            creator=Creator(
                store=store.sandboxes,
                nodes=nodes,
                keeper=keeper,
                templates=templates,
                tokens=tokens,
                settings=settings,
                clock=clock,
                cluster_id=cluster_id,
            ),
            living=Living(store.sandboxes, nodes, keeper, clock),
            telemetry=Telemetry(store.sandboxes, nodes),
            presenter=Presenter(tokens, settings.domain),
            reconciler=Reconciler(
                store=store,
                nodes=nodes,
                keeper=keeper,
                templates=templates,
                settings=settings,
                clock=clock,
                cluster_id=cluster_id,
            ),
        )

    async def close(self) -> None:
        """End the loops, let writes that were promised be done, close connections."""
        await self.reconciler.close()
        await self.background.close(_PATIENCE)
        await self.nodes.close()
        await self.store.close()
