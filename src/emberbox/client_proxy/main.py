"""The client proxy as a process: it serves clients itself, or has workers that do."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import structlog
import uvloop

from emberbox.client_proxy.edge import Edge, make_engine, say_where
from emberbox.client_proxy.health import HealthResolver
from emberbox.client_proxy.workers import Workers
from emberbox.proxying.limits import Limits
from emberbox.proxying.metrics import Collector
from emberbox.proxying.sockets import open_listener
from emberbox.shared import logs

if TYPE_CHECKING:
    from emberbox.client_proxy.settings import Settings

_log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises StartupError."""
    logs.configure("client-proxy")
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    edge: Edge | Workers = Edge(settings) if settings.workers == 1 else Workers(settings)
    health = HealthResolver(Collector(edge.read_counts, "emberbox_client_proxy"))
    health_engine = make_engine(health, Limits())
    health_socket = open_listener(settings.health_host, settings.health_port)
    stop = stopped()
    await edge.serve()
    await health_engine.serve(health_socket)
    say_where(settings)
    await stop.wait()
    health.draining = True
    cut = await edge.drain()
    await health_engine.drain(0)
    _log.info("client proxy ended", connections_cut=cut)


def stopped() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
