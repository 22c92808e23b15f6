"""Runs the API server."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import structlog
import uvicorn
import uvloop

from emberbox.api_server.app import build_app
from emberbox.api_server.bootstrap import ensure_default_key, refuse_public_without_keys
from emberbox.api_server.internal_service import InternalServer
from emberbox.api_server.services import Services
from emberbox.api_server.store import Store
from emberbox.shared import internal_secret, logs, metrics, tracing
from emberbox.shared.errors import StartupError
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from emberbox.api_server.settings import Settings

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_IDLE_CONNECTION = 620
"""Seconds; above the 600 of load balancers, so that they close first (protocol 4.1)."""
_METRICS_PORT = "EMBERBOX_API_METRICS_PORT"
_GRACE = 10
"""Seconds that requests may take to end after SIGTERM."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError."""
    logs.configure("api-server")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    tracing.configure("api-server")
    with metrics.serving(settings.metrics_host, settings.metrics_port, _METRICS_PORT):
        uvloop.run(_run(settings))


async def _run(settings: Settings) -> None:
    with _listen(settings.host, settings.port) as listener:
        store = await Store.open(settings.database)
        try:
            await refuse_public_without_keys(store, settings.host)
            await ensure_default_key(store, Home(settings.home))
            secret = internal_secret.load_or_create(settings.secret_path)
            services = await Services.wire(settings, store, secret)
        except BaseException:
            await store.close()
            raise
        try:
            async with _internal(services, secret):
                await _serve(services, listener)
        finally:
            await services.close()


@asynccontextmanager
async def _internal(services: Services, secret: str) -> AsyncIterator[None]:
    """Serve our own proxies beside. Raises StartupError."""
    settings = services.settings
    server = InternalServer(services.auto_resumer, services.nodes, secret)
    port = await server.start(settings.internal_host, settings.internal_port)
    log.info("serving our own proxies", host=settings.internal_host, port=port)
    try:
        yield
    finally:
        await server.close()


async def _serve(services: Services, listener: socket.socket) -> None:
    server = Server(
        uvicorn.Config(
            build_app(services),
            http="httptools",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE_CONNECTION,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    services.start()
    log.info("serving", address=listener.getsockname())
    await server.serve([listener])


class Server(uvicorn.Server):
    """Uvicorn whose end by a signal is a normal one: exit status 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server: uvicorn would raise them again afterwards."""
        yield

    def end(self) -> None:
        """Take no more connections and return when the requests have ended."""
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}: {error.strerror}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"port {port} of {host} is in use: stop the other program, or choose another "
                "port with --port or EMBERBOX_API_PORT"
            ) from error
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener
