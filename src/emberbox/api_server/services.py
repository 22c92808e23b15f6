"""All that the routes stand on, wired once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from emberbox.api_server.auth import Authenticator
from emberbox.api_server.auto_resuming import AutoResumer
from emberbox.api_server.background import Background
from emberbox.api_server.catalog import Catalog, NoCatalog
from emberbox.api_server.catching_up import CatchUp
from emberbox.api_server.checkpoints import Checkpoints
from emberbox.api_server.clock import Clock, utc_now
from emberbox.api_server.configuring import Configurer
from emberbox.api_server.creating import Creator
from emberbox.api_server.forking import Forker
from emberbox.api_server.living import Living
from emberbox.api_server.node import Node
from emberbox.api_server.nodes import KnownNodes
from emberbox.api_server.pausing import Pauser
from emberbox.api_server.presenting import Presenter
from emberbox.api_server.rate_limits import LocalLimiter, RateLimits
from emberbox.api_server.reconcile import Reconciler
from emberbox.api_server.records.keeper import Keeper
from emberbox.api_server.resuming import Resumer
from emberbox.api_server.snapshotting import Snapshots
from emberbox.api_server.telemetry import Telemetry
from emberbox.api_server.template_names import Templates
from emberbox.api_server.tokens import SandboxTokens
from emberbox.api_server.watching import Watcher

if TYPE_CHECKING:
    from emberbox.api_server.redis_parts import RedisParts
    from emberbox.api_server.settings import Settings
    from emberbox.api_server.store import Store

_PATIENCE = 5.0
"""Seconds that background work may take when the server ends."""


@dataclass(frozen=True, slots=True)
class Services:
    """One API server's parts."""

    settings: Settings
    store: Store
    nodes: KnownNodes
    background: Background
    authenticator: Authenticator
    rate_limits: RateLimits
    redis: RedisParts | None
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
    watcher: Watcher

    @classmethod
    async def wire(
        cls, settings: Settings, store: Store, secret: str, clock: Clock = utc_now
    ) -> Self:
        """Make the parts; nothing runs yet. `secret` is shown to the orchestrators."""
        cluster_id = await store.cluster.cluster_id()
        tokens = SandboxTokens(await store.cluster.token_seed())
        background = Background()
        authenticator = Authenticator(store.keys, background, clock)
        nodes = _nodes(settings, store, secret, clock)
        redis = _redis(settings, authenticator, nodes, store)
        limiter = redis.limiter if redis else LocalLimiter()
        catalog = redis.catalog if redis else NoCatalog()
        keeper = Keeper(store.sandboxes, nodes, background, catalog, clock)
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
            catalog=catalog,
            background=background,
            settings=settings,
            clock=clock,
        )
        creator = shared.creator()
        living = Living(store.sandboxes, nodes, keeper, shared.catch_up, clock)
        pauser = Pauser(nodes, keeper, shared.catch_up, settings.pause_timeout)
        resumer = shared.resumer(living, pauser)
        reconciler = shared.reconciler(cluster_id)
        return cls(
            settings=settings,
            store=store,
            nodes=nodes,
            background=background,
            authenticator=authenticator,
            rate_limits=RateLimits(settings.rate_limits, limiter),
            redis=redis,
            templates=templates,
            creator=creator,
            living=living,
            telemetry=Telemetry(store.sandboxes, nodes),
            pauser=pauser,
            resumer=resumer,
            snapshots=shared.snapshots(),
            forker=Forker(store.builds, creator, checkpoints, shared.catch_up),
            auto_resumer=AutoResumer(store, resumer, shared.catch_up, tokens),
            presenter=Presenter(tokens, settings.domain, nodes.silent_since),
            reconciler=reconciler,
            watcher=Watcher(
                reconciler=reconciler,
                nodes=nodes,
                store=store.nodes,
                settings=settings,
                clock=clock,
            ),
        )

    def start(self) -> None:
        """Begin the loops."""
        self.watcher.start()
        if self.redis is not None:
            self.redis.start()

    async def close(self) -> None:
        """End the loops, let writes that were promised be done, close connections."""
        await self.watcher.close()
        await self.pauser.close()
        await self.resumer.close()
        await self.background.close(_PATIENCE)
        await self.nodes.close()
        if self.redis is not None:
            await self.redis.close()
        await self.store.close()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several parts stand on."""

    store: Store
    nodes: KnownNodes
    keeper: Keeper
    templates: Templates
    checkpoints: Checkpoints
    catch_up: CatchUp
    configurer: Configurer
    catalog: Catalog
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
            catalog=self.catalog,
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
            catalog=self.catalog,
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
            catalog=self.catalog,
            settings=self.settings,
            clock=self.clock,
            cluster_id=cluster_id,
        )


def _redis(
    settings: Settings, authenticator: Authenticator, nodes: KnownNodes, store: Store
) -> RedisParts | None:
    if not settings.redis_url:
        return None
    from emberbox.api_server.redis_parts import RedisParts  # noqa: PLC0415 - 0.1 s and 10 MB

    return RedisParts.open(settings.redis_url, authenticator, nodes, store.sandboxes)


def _nodes(settings: Settings, store: Store, secret: str, clock: Clock) -> KnownNodes:
    def connect(address: str) -> Node:
        return Node(
            address,
            secret,
            connect_timeout=settings.connect_timeout,
            call_timeout=settings.call_timeout,
        )

    return KnownNodes(
        store,
        connect,
        settings.orchestrator_addresses,
        clock=clock,
        silent_after=timedelta(seconds=settings.node_silent_after),
    )
