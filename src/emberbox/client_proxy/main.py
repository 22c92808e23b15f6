"""The client proxy as a process."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import uvloop

from emberbox.client_proxy.catalog import HostAddress, StaticCatalog
from emberbox.client_proxy.health import HealthResolver
from emberbox.client_proxy.resolver import EdgeResolver
from emberbox.proxying.accesslog import AccessLog
from emberbox.proxying.addresses import parse_address
from emberbox.proxying.dialing import Dialer
from emberbox.proxying.engine import Engine
from emberbox.proxying.journal import Journal
from emberbox.proxying.limits import Limits
from emberbox.proxying.pool import Pool
from emberbox.proxying.sockets import open_listener
from emberbox.shared import internal_secret, logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emberbox.client_proxy.settings import Settings
    from emberbox.proxying.resolving import Resolver

_log = structlog.get_logger()
_KEPT_UPSTREAM = 610.0
"""Seconds; E2B's value, below the 620 after which the data proxy closes."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises StartupError."""
    logs.configure("client-proxy")
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    secret = internal_secret.load_or_create(settings.secret_path)
    async with _resolver(settings, secret) as resolver:
        await _serve_with(settings, resolver)


@asynccontextmanager
async def _resolver(settings: Settings, secret: str) -> AsyncIterator[EdgeResolver]:
    """For one host, or for those of a catalog. Raises StartupError."""
    if not settings.redis_url:
        host = HostAddress(*parse_address(settings.data_proxy_address))
        yield EdgeResolver(StaticCatalog(host), secret)
        return
    from emberbox.client_proxy.redis_catalog import RedisCatalog  # noqa: PLC0415 - 0.1 s, 10 MB
    from emberbox.proxying.auto_resume import ResumeClient  # noqa: PLC0415

    catalog = RedisCatalog.open(settings.redis_url)
    resumer = ResumeClient(settings.api_internal_address, secret)
    try:
        yield EdgeResolver(catalog, secret, resumer)
    finally:
        await resumer.close()
        await catalog.close()


async def _serve_with(settings: Settings, resolver: EdgeResolver) -> None:
    health = HealthResolver()
    log = None if settings.access_log is None else AccessLog(settings.access_log)
    journal = Journal(log=log)
    edge_engine = make_engine(resolver, limits_of(settings), journal)
    health_engine = make_engine(health, Limits())
    # Both sockets are taken before either is served: a port in use ends the start cleanly.
    edge_socket = open_listener(settings.host, settings.port)
    health_socket = open_listener(settings.health_host, settings.health_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await edge_engine.serve(edge_socket)
    await health_engine.serve(health_socket)
    _say_where(settings)
    await stop.wait()
    health.draining = True
    cut = await edge_engine.drain(settings.drain_timeout)
    await health_engine.drain(0)
    _log.info("client proxy ended", connections_cut=cut)


def make_engine(resolver: Resolver, limits: Limits, journal: Journal | None = None) -> Engine:
    """An engine that tries an upstream once and keeps its connections."""
    pool = Pool(_KEPT_UPSTREAM)
    return Engine(resolver, limits=limits, dialer=Dialer(limits), pool=pool, journal=journal)


def limits_of(settings: Settings) -> Limits:
    """The engine's limits with what the operator set."""
    return Limits(
        request_head=settings.max_head_bytes,
        header_timeout=settings.header_timeout,
        idle_timeout=settings.idle_timeout,
    )


def _say_where(settings: Settings) -> None:
    _log.info(
        "client proxy serves",
        address=f"{settings.host}:{settings.port}",
        health=f"{settings.health_host}:{settings.health_port}",
        hosts="of the catalog" if settings.redis_url else settings.data_proxy_address,
    )
    if settings.port == 443:
        _log.warning("port 443 carries plain HTTP: put something that ends TLS in front of it")
