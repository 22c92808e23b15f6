"""All that the routes stand on, wired once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from emberbox.api_server.auth import Authenticator
from emberbox.api_server.auto_resuming import AutoResumer
from emberbox.api_server.background import Background
from emberbox.api_server.catching_up import CatchUp
from emberbox.api_server.checkpoints import Checkpoints
from emberbox.api_server.clock import Clock, utc_now
from emberbox.api_server.configuring import Configurer
from emberbox.api_server.creating import Creator
from emberbox.api_server.forking import Forker
from emberbox.api_server.living import Living
from emberbox.api_server.node import Node
from emberbox.api_server.nodes import StaticNodes
from emberbox.api_server.pausing import Pauser
from emberbox.api_server.presenting import Presenter
from emberbox.api_server.reconcile import Reconciler
from emberbox.api_server.records.keeper import Keeper
from emberbox.api_server.resuming import Resumer
from emberbox.api_server.snapshotting import Snapshots
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
    pauser: Pauser
    resumer: Resumer
    snapshots: Snapshots
    forker: Forker
    auto_resumer: AutoResumer
    presenter: Presenter
    reconciler: Reconciler

    @classmethod
    async def wire(
        cls, settings: Settings, store: Store, secret: str, clock: Clock = utc_now
    ) -> Self:
        """Make the parts; nothing runs yet. `secret` is shown to the orchestrators."""
        cluster_id = await store.cluster.cluster_id()
        tokens = SandboxTokens(await store.cluster.token_seed())
        background = Background()
        nodes = _nodes(settings, secret)
        keeper = Keeper(store.sandboxes, nodes, background, clock)
        templates = Templates(store.templates, store.builds, nodes, clock)
        checkpoints = Checkpoints(store.builds, store.events, nodes, clock, settings.pause_timeout)
        shared = _Shared(
            store=store,
            nodes=nodes,
            keeper=keeper,
            templates=templates,
            checkpoints=checkpoints,
            catch_up=CatchUp(store.sandboxes, nodes, keeper, settings.create_timeout),
            configurer=Configurer(tokens, cluster_id),
            background=background,
            settings=settings,
            clock=clock,
        )
        creator = shared.creator()
        living = Living(store.sandboxes, nodes, keeper, clock)
        pauser = Pauser(nodes, keeper, shared.catch_up, settings.pause_timeout)
        resumer = shared.resumer(living, pauser)
        return cls(
            settings=settings,
            store=store,
            nodes=nodes,
            background=background,
            authenticator=Authenticator(store.keys, background, clock),
            templates=templates,
            creator=creator,
            living=living,
            telemetry=Telemetry(store.sandboxes, nodes),
            pauser=pauser,
            resumer=resumer,
            snapshots=shared.snapshots(),
            forker=Forker(store.builds, creator, checkpoints, shared.catch_up),
            auto_resumer=AutoResumer(store, resumer, shared.catch_up, tokens),
            presenter=Presenter(tokens, settings.domain),
            reconciler=shared.reconciler(cluster_id),
        )

    async def close(self) -> None:
        """End the loops, let writes that were promised be done, close connections."""
        await self.reconciler.close()
        await self.pauser.close()
        await self.resumer.close()
        await self.background.close(_PATIENCE)
        await self.nodes.close()
        await self.store.close()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several parts stand on."""

    store: Store
    nodes: StaticNodes
    keeper: Keeper
    templates: Templates
    checkpoints: Checkpoints
    catch_up: CatchUp
    configurer: Configurer
    background: Background
    settings: Settings
    clock: Clock

    def creator(self) -> Creator:
        return Creator(
            store=self.store.sandboxes,
            nodes=self.nodes,
            keeper=self.keeper,
            templates=self.templates,
            configurer=self.configurer,
            settings=self.settings,
            clock=self.clock,
        )

    def resumer(self, living: Living, pauser: Pauser) -> Resumer:
        return Resumer(
            store=self.store.sandboxes,
            nodes=self.nodes,
            keeper=self.keeper,
            living=living,
            pauser=pauser,
            catch_up=self.catch_up,
            configurer=self.configurer,
            timeout=self.settings.create_timeout,
        )

    def snapshots(self) -> Snapshots:
        return Snapshots(
            store=self.store,
            templates=self.templates,
            checkpoints=self.checkpoints,
            catch_up=self.catch_up,
            background=self.background,
            clock=self.clock,
        )

    def reconciler(self, cluster_id: str) -> Reconciler:
        return Reconciler(
            store=self.store,
            nodes=self.nodes,
            keeper=self.keeper,
            templates=self.templates,
            checkpoints=self.checkpoints,
            settings=self.settings,
            clock=self.clock,
            cluster_id=cluster_id,
        )


def _nodes(settings: Settings, secret: str) -> StaticNodes:
    return StaticNodes(
        Node(
            address,
            secret,
            connect_timeout=settings.connect_timeout,
            call_timeout=settings.call_timeout,
        )
        for address in settings.orchestrator_addresses
    )
