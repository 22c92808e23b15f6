"""The part of the client proxy that serves clients: one engine, in this process or in workers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from emberbox.client_proxy.catalog import Place, StaticCatalog
from emberbox.client_proxy.resolver import EdgeResolver
from emberbox.proxying.accesslog import AccessLog
from emberbox.proxying.counts import Row
from emberbox.proxying.dialing import Dialer
from emberbox.proxying.engine import Engine
from emberbox.proxying.journal import Journal
from emberbox.proxying.limits import Limits
from emberbox.proxying.pool import Pool
from emberbox.proxying.sockets import open_listener, room_for
from emberbox.proxying.tls import Certificate
from emberbox.shared import internal_secret
from emberbox.shared.addresses import parse_address
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.client_proxy.settings import Settings
    from emberbox.proxying.counts import Counts
    from emberbox.proxying.resolving import Resolver

_log = structlog.get_logger()
_KEPT_UPSTREAM = 610.0
"""Seconds; E2B's value, below the 620 after which the data proxy closes."""
_DIAL_WAITS = (0.05, 0.1, 0.2, 0.4)
"""Seconds between tries: a data proxy whose only worker died listens again by then."""
_DIAL_SECONDS = 5.0
"""For a host of our own network to accept; callers who wait 10 s hear of one that does not."""


class Edge:
    """Must be made in the event loop it serves in."""

    def __init__(self, settings: Settings, row: Path | None = None) -> None:
        """Take the ports. Without `row`, a file, only this process sees what is counted.

        Raises StartupError.
        """
        self._settings = settings
        self._closing = AsyncExitStack()
        self.engine = make_engine(
            _resolver(settings, self._closing), limits_of(settings), _journal(settings, row)
        )
        self._certificate = _certificate(settings)
        # All are taken before any is served: a port in use ends the start cleanly.
        self._listeners = [
            (open_listener(settings.host, port, share_port=settings.workers > 1), encrypted)
            for port, encrypted in settings.ports
        ]
        self._following: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Begin to accept."""
        certificate = self._certificate
        for listener, encrypted in self._listeners:
            tls = certificate.context if certificate is not None and encrypted else None
            await self.engine.serve(listener, tls)
        if certificate is not None:
            self._following = asyncio.create_task(certificate.follow())

    def read_counts(self) -> Counts:
        """What this process counted."""
        self.engine.journal.flush()
        return self.engine.counts

    async def drain(self) -> int:
        """Let what goes on finish; return how many connections were cut."""
        if self._following is not None:
            self._following.cancel()
        cut = await self.engine.drain(self._settings.drain_timeout)
        await self._closing.aclose()
        return cut


def _resolver(settings: Settings, closing: AsyncExitStack) -> EdgeResolver:
    """For one host, or for those of a catalog."""
    secret = internal_secret.load_or_create(settings.secret_path)
    if not settings.redis_url:
        host = Place(*parse_address(settings.data_proxy_address))
        return EdgeResolver(StaticCatalog(host), secret)
    from emberbox.client_proxy.redis_catalog import RedisCatalog  # noqa: PLC0415 - 0.1 s, 10 MB
    from emberbox.proxying.auto_resume import ResumeClient  # noqa: PLC0415

    catalog = RedisCatalog.open(settings.redis_url)
    closing.push_async_callback(catalog.close)
    resumer = ResumeClient(settings.api_internal_address, secret)
    closing.push_async_callback(resumer.close)
    return EdgeResolver(catalog, secret, resumer)


def make_engine(resolver: Resolver, limits: Limits, journal: Journal | None = None) -> Engine:
    """An engine that keeps the connections to its upstreams."""
    dialer = Dialer(limits, waits=_DIAL_WAITS, connect_timeout=_DIAL_SECONDS)
    pool = Pool(_KEPT_UPSTREAM)
    return Engine(resolver, limits=limits, dialer=dialer, pool=pool, journal=journal)


def limits_of(settings: Settings) -> Limits:
    """The engine's limits with what the operator set."""
    return Limits(
        request_head=settings.max_head_bytes,
        header_timeout=settings.header_timeout,
        idle_timeout=settings.idle_timeout,
        connections=room_for(settings.max_connections),
        per_client=settings.max_connections_per_client,
    )


def _journal(settings: Settings, row: Path | None) -> Journal:
    try:
        log = None if settings.access_log is None else AccessLog(settings.access_log)
    except OSError as error:
        raise StartupError(f"{settings.access_log}: {error.strerror}") from error
    return Journal(row=None if row is None else Row(row), log=log)


def _certificate(settings: Settings) -> Certificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


def say_where(settings: Settings) -> None:
    """Log what is served where."""
    _log.info(
        "client proxy serves",
        address=f"{settings.host}:{settings.port}",
        tls=[port for port, encrypted in settings.ports if encrypted],
        health=f"{settings.health_host}:{settings.health_port}",
        hosts="of the catalog" if settings.redis_url else settings.data_proxy_address,
        workers=settings.workers,
    )
    if (443, False) in settings.ports:
        _log.warning(
            "port 443 carries plain HTTP: set EMBERBOX_PROXY_TLS_CERT and EMBERBOX_PROXY_TLS_KEY, "
            "or put something that ends TLS in front of it"
        )
