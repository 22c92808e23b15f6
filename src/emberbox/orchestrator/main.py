"""The orchestrator program: puts the parts together, and takes them apart in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

# Before grpc is imported: its fork handlers are of no use to a program that starts its children
# by exec only, and can hang one that has many threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
import structlog

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.data_proxy.feed import RouteFeed
from emberbox.orchestrator.data_proxy.supervisor import DataProxyOptions, DataProxySupervisor
from emberbox.orchestrator.errors import MachineError, OrchestratorError
from emberbox.orchestrator.exclusive import only_one_of_home, only_one_of_node
from emberbox.orchestrator.heartbeat import Heartbeat
from emberbox.orchestrator.host_metrics import HostCollector, collecting
from emberbox.orchestrator.images import ImageStore
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.machines.probe import select_driver
from emberbox.orchestrator.network.pool import SlotPool
from emberbox.orchestrator.node_info import NodeInfo
from emberbox.orchestrator.outbox import Outbox
from emberbox.orchestrator.places import Places
from emberbox.orchestrator.pool.demand import Sizes
from emberbox.orchestrator.pool.pool import WarmPool
from emberbox.orchestrator.readiness import Readiness
from emberbox.orchestrator.routes import FeedRoutes
from emberbox.orchestrator.sandboxes.admission import Limits, pause_reserve_mb
from emberbox.orchestrator.sandboxes.beginning import clonable
from emberbox.orchestrator.sandboxes.holdings import Host
from emberbox.orchestrator.sandboxes.host import Sandboxes
from emberbox.orchestrator.sandboxes.records import RunDirectories
from emberbox.orchestrator.sandboxes.share import open_shares
from emberbox.orchestrator.sandboxes.starts import StartQueue
from emberbox.orchestrator.service import (
    HostService,
    InfoService,
    SandboxService,
    TemplateService,
)
from emberbox.orchestrator.snapshots.local import LocalSnapshotStore
from emberbox.orchestrator.telemetry.guest import SlotGuest
from emberbox.orchestrator.telemetry.observing import ObservedRoutes
from emberbox.orchestrator.telemetry.store import Retention, TelemetryStore
from emberbox.orchestrator.telemetry.telemetry import Telemetry, Timing
from emberbox.orchestrator.templates.build import Builder
from emberbox.orchestrator.templates.catalog import TemplateCatalog
from emberbox.orchestrator.templates.checkpoints import Checkpoints
from emberbox.orchestrator.templates.prepare import Preparation, base_template
from emberbox.orchestrator.templates.store import TemplateSpec, TemplateStore
from emberbox.shared import internal_secret, logs, tracing
from emberbox.shared.addresses import parse_addresses
from emberbox.shared.errors import StartupError
from emberbox.shared.grpc_secret import RequireSecret
from emberbox.shared.metrics import serving

if TYPE_CHECKING:
    from emberbox.orchestrator.settings import Settings

_log = structlog.get_logger(__name__)

_METRICS_PORT = "EMBERBOX_ORCHESTRATOR_METRICS_PORT"
_GRACE_SECONDS = 2.0
"""How long calls in flight may go on when the program ends."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or a Shutdown call; VMs live on unless that call ends them.

    Raises StartupError with one line that says what to do.
    """
    logs.configure("orchestrator")
    tracing.configure("orchestrator")
    if os.geteuid() != 0:
        raise StartupError("the orchestrator needs root, for namespaces and uids: use sudo")
    settings.paths.orchestrator.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with only_one_of_home(settings.paths.orchestrator), only_one_of_node(settings):
            asyncio.run(Orchestrator.of(settings).serve())
    except MachineError as error:
        raise StartupError(error.explain()) from error
    except (OrchestratorError, OSError) as error:
        raise StartupError(str(error)) from error


@dataclass(slots=True)
class Orchestrator:
    """The parts of one running orchestrator."""

    settings: Settings
    secret: str
    host: Host
    slots: SlotPool
    feed: RouteFeed
    data_proxy: DataProxySupervisor
    pool: WarmPool
    sandboxes: Sandboxes
    templates: TemplateCatalog
    checkpoints: Checkpoints
    preparation: Preparation
    readiness: Readiness
    telemetry: Telemetry
    info: NodeInfo

    @classmethod
    def of(cls, settings: Settings) -> Orchestrator:
        """Put the parts together; nothing is started. Raises StartupError."""
        paths = settings.paths
        places = Places.of(paths, settings.shared_directory, settings.node_id)
        driver = select_driver(settings.driver, settings.firecracker_options)
        network, slots, feed = settings.network, _slots(settings), RouteFeed()
        data_proxy = _data_proxy(settings, feed)
        starts = StartQueue(settings.concurrent_starts, settings.start_wait)
        telemetry = _telemetry(settings, starts)
        store = TemplateStore(paths.templates)
        host = Host(
            node=network.tag,
            uid_base=settings.first_uid,
            driver=driver,
            slots=slots,
            routes=ObservedRoutes(FeedRoutes(feed), telemetry),
            directories=RunDirectories(places.run_directories),
            outbox=Outbox(paths.orchestrator / "outbox.db"),
            snapshots=LocalSnapshotStore(places.snapshots, places.others),
            builds=store,
            starts=starts,
            shares=open_shares(
                settings.cgroup_parent, network.tag, paths.orchestrator, settings.vm_io_mb_s
            ),
            saves=asyncio.Semaphore(settings.concurrent_starts),
            pause_reserve_mb=pause_reserve_mb(_limits(settings)),
        )
        templates, readiness = TemplateCatalog(), Readiness()
        images = ImageStore(paths.images)
        checkpoints = Checkpoints(driver, images, store, templates)
        pool = _pool(settings, host, templates)
        templates.when_offered(pool.look)
        sandboxes = Sandboxes(host, templates, checkpoints, _limits(settings), pool)
        preparation = Preparation(
            spec=_base(settings),
            images=images,
            templates=store,
            catalog=templates,
            builder=Builder(network.tag, settings.first_uid, driver, slots, store, host.shares),
            readiness=readiness,
            in_use=sandboxes.builds_in_use,
            own_kernel=settings.own_kernel,
        )
        return cls(
            settings=settings,
            secret=internal_secret.load_or_create(settings.secret_file),
            host=host,
            slots=slots,
            feed=feed,
            data_proxy=data_proxy,
            pool=pool,
            sandboxes=sandboxes,
            templates=templates,
            checkpoints=checkpoints,
            preparation=preparation,
            readiness=readiness,
            telemetry=telemetry,
            info=_node_info(settings, places, host, readiness, sandboxes),
        )

    async def serve(self) -> None:
        """Take over what lives, serve, and let go of it again, however it ends."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # First of all, so that a port that is taken costs nothing.
        server = self._server(stop)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.host.outbox.close)
            await self._take_over(stack)
            self._serve_metrics(stack)
            stack.push_async_callback(server.stop, _GRACE_SECONDS)
            await server.start()
            heartbeat = self._heartbeat()
            heartbeat.start()
            stack.push_async_callback(heartbeat.close)
            _log.info("serving", port=self.settings.port, driver=self.host.driver.report.name)
            await self._prepare_and_wait(stop)

    def _heartbeat(self) -> Heartbeat:
        settings = self.settings
        addresses = parse_addresses(settings.api_internal_address)
        return Heartbeat(addresses, self.secret, self.info, settings.heartbeat_interval)

    def _serve_metrics(self, stack: contextlib.AsyncExitStack) -> None:
        settings, state = self.settings, self.settings.paths.orchestrator
        collector = HostCollector(self.sandboxes, self.slots, state)
        stack.enter_context(collecting(collector))
        stack.enter_context(serving(settings.metrics_host, settings.metrics_port, _METRICS_PORT))

    async def _take_over(self, stack: contextlib.AsyncExitStack) -> None:
        """VMs first, then their slots, then the data proxy, which must not see a table without
        the routes of VMs that live. What is taken is let go in reverse order."""
        await asyncio.to_thread(self.host.builds.sweep)
        await asyncio.to_thread(self.checkpoints.load)
        await self.slots.start()
        stack.push_async_callback(self._close_slots)
        stack.push_async_callback(self.telemetry.close)
        stack.push_async_callback(self.pool.close)
        in_use = await self.sandboxes.adopt_all()
        self.telemetry.start()  # knowing who lives
        stack.push_async_callback(self.sandboxes.detach_all)
        await self.slots.reclaim(in_use)
        self.host.shares.sweep(in_use)
        await self.feed.start(self.settings.paths.orchestrator / "routes.sock")
        stack.push_async_callback(self.feed.close)
        await self.data_proxy.start()
        stack.push_async_callback(self._leave_data_proxy)
        self.pool.start(self.sandboxes.clone_room)

    async def _prepare_and_wait(self, stop: asyncio.Event) -> None:
        """Serve until told to stop. Raises what preparing fails with when nothing is offered."""
        preparing = asyncio.create_task(self.preparation.run())
        stopping = asyncio.create_task(stop.wait())
        tasks: list[asyncio.Task[Any]] = [preparing, stopping]
        try:
            await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                await preparing
                tasks.append(asyncio.create_task(self.preparation.keep_tidy()))
                await stopping
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave_data_proxy(self) -> None:
        """It serves on for VMs that live on; without any it has nothing to do."""
        if list(self.sandboxes):
            await self.data_proxy.detach()
        else:
            await self.data_proxy.stop()

    async def _close_slots(self) -> None:
        in_use = {s.slot_index for s in self.sandboxes if s.slot_index is not None}
        await self.slots.close(keep=in_use)
        self.host.shares.close()

    async def _shut_down(self, stop: asyncio.Event, *, keep: bool) -> int:
        ended = 0 if keep else await self.sandboxes.end_all("the host was shut down")
        stop.set()
        return ended

    def _server(self, stop: asyncio.Event) -> grpc.aio.Server:
        # Without this gRPC shares the port with another server silently.
        options = [("grpc.so_reuseport", 0)]
        server = grpc.aio.server(interceptors=[RequireSecret(self.secret)], options=options)
        pb_grpc.add_SandboxServiceServicer_to_server(
            SandboxService(self.sandboxes, self.host.outbox, self.telemetry), server
        )
        pb_grpc.add_InfoServiceServicer_to_server(InfoService(self.info), server)
        pb_grpc.add_TemplateServiceServicer_to_server(
            TemplateService(self.templates, self.sandboxes), server
        )
        pb_grpc.add_HostServiceServicer_to_server(
            HostService(lambda keep: self._shut_down(stop, keep=keep)), server
        )
        address = f"{self.settings.host}:{self.settings.port}"
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(
                f"gRPC cannot listen on {address} (taken, or no address of this host): stop what"
                " listens there or set EMBERBOX_ORCHESTRATOR_HOST and EMBERBOX_ORCHESTRATOR_PORT"
            ) from error
        return server


def _base(settings: Settings) -> TemplateSpec:
    size = Hardware(settings.template_vcpu, settings.template_ram_mb)
    return base_template(size, settings.template_disk_mb)


def _node_info(
    settings: Settings, places: Places, host: Host, readiness: Readiness, sandboxes: Sandboxes
) -> NodeInfo:
    identity = settings.identity(places.shared_id)
    return NodeInfo(identity, places.run_directories, host.driver.report, readiness, sandboxes)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_sandboxes=settings.max_sandboxes,
        memory_overcommit=settings.memory_overcommit,
        memory_reserve_mb=settings.memory_reserve_mb,
        disk_reserve_mb=settings.disk_reserve_mb,
    )


def _pool(settings: Settings, host: Host, templates: TemplateCatalog) -> WarmPool:
    sizes = Sizes(
        most=settings.pool_size,
        least=settings.pool_least,
        at_once=max(1, (os.cpu_count() or 1) // 2),
        idle_seconds=settings.pool_idle,
    )
    host = replace(host, directories=RunDirectories(settings.paths.pool))
    return WarmPool(host, sizes, partial(clonable, host, templates))


def _slots(settings: Settings) -> SlotPool:
    return SlotPool(
        settings.network,
        settings.paths.orchestrator / "network",
        size=settings.slot_pool,
        resolv_conf=settings.resolv_conf,
    )


def _data_proxy(settings: Settings, feed: RouteFeed) -> DataProxySupervisor:
    paths = settings.paths
    return DataProxySupervisor(
        DataProxyOptions(
            directory=paths.orchestrator / "data-proxy",
            feed_socket=paths.orchestrator / "routes.sock",
            secret_file=settings.secret_file,
            api_address=settings.api_internal_address,
            host=settings.data_host,
            port=settings.data_port,
            metrics_port=settings.data_metrics_port or settings.data_port + 1,
            workers=settings.data_workers,
            max_connections=settings.data_max_connections,
            max_per_sandbox=settings.data_max_per_sandbox,
            access_log=settings.data_access_log,
        ),
        feed,
    )


def _telemetry(settings: Settings, starts: StartQueue) -> Telemetry:
    retention = Retention(
        days=settings.sandbox_log_days,
        sandboxes=settings.sandbox_log_count,
        log_bytes=settings.sandbox_log_kb * 1024,
    )
    store = TelemetryStore(settings.paths.orchestrator / "telemetry", retention)
    network = settings.network
    return Telemetry(
        store,
        lambda record: SlotGuest(network.slot(record.slot)),
        Timing(interval=settings.metrics_interval),
        starts.idle,
    )
