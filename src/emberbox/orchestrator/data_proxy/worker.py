"""One worker process of the data proxy."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from emberbox.orchestrator.data_proxy import logbound
from emberbox.orchestrator.data_proxy.bridging import Bridges
from emberbox.orchestrator.data_proxy.follower import RouteFollower
from emberbox.orchestrator.data_proxy.resolver import HostResolver
from emberbox.orchestrator.data_proxy.table import RouteTable
from emberbox.proxying import replies
from emberbox.proxying.auto_resume import ResumeClient
from emberbox.proxying.dialing import Dialer
from emberbox.proxying.engine import Engine
from emberbox.proxying.limits import Limits
from emberbox.proxying.pool import Pool
from emberbox.proxying.sockets import open_listener
from emberbox.shared import internal_secret, logs
from emberbox.shared.errors import StartupError
from emberbox.shared.protocol import DATA_PROXY_PORT, ENVD_PORT

if TYPE_CHECKING:
    import socket

    from emberbox.orchestrator.data_proxy.messages import Message
    from emberbox.proxying.auto_resume import Resumer

_log = structlog.get_logger()

CANNOT_START = 3
"""Exit status: the last line of the log says why, and starting again will not help."""

_DIAL_WAITS = (0.1, 0.2, 0.3, 0.4)
"""Seconds between the five tries of E2B's proxy."""
_KEPT_ENVD = 610.0
"""Seconds a connection to envd is kept: envd closes an idle one after 700."""
_ROTATE_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is told on its command line. `drain_timeout` is in seconds."""

    socket: Path
    secret_file: Path
    api_address: str
    host: str = "127.0.0.1"
    port: int = DATA_PROXY_PORT
    drain_timeout: float = 10.0


class Worker:
    """The engine of one process, its table, and the feed that fills it."""

    def __init__(
        self,
        secret: str,
        *,
        feed_socket: Path | None = None,
        resumer: Resumer | None = None,
        limits: Limits | None = None,
        envd_port: int = ENVD_PORT,
    ) -> None:
        """Must be made in the event loop it will serve in.

        Without `feed_socket` the table is what `apply` is given; without `resumer` no traffic
        resumes a sandbox.
        """
        limits = limits or Limits()
        bridges = Bridges(envd_port=envd_port)
        self.table = RouteTable()
        self._follower = RouteFollower(feed_socket, self.apply) if feed_socket else None
        self.engine = Engine(
            HostResolver(self.table, secret, self._follower, resumer),
            limits=limits,
            dialer=Dialer(limits, waits=_DIAL_WAITS, connect_refused=bridges.connect_refused),
            pool=Pool(_KEPT_ENVD, asyncio.get_running_loop().time),
        )

    async def follow(self) -> None:
        """Keep the table as the orchestrator says, for ever."""
        if self._follower is not None:
            await self._follower.run()

    def apply(self, message: Message) -> None:
        """Change the table; end what belonged to the routes that are gone."""
        for route in self.table.apply(message):
            reply = replies.not_found(route.sandbox_id)
            self.engine.pool.drop(route.execution_id)
            ended = self.engine.registry.end(route.sandbox_id, route.execution_id, reply)
            if ended:
                _log.info("connections reset", sandbox_id=route.sandbox_id, count=ended)


def main() -> None:
    """Entry of `python -m emberbox.orchestrator.data_proxy`."""
    options = _parse(sys.argv[1:])
    logs.configure("data-proxy")
    # It may live for months: it must not keep a directory busy that its starter was in.
    os.chdir("/")
    try:
        secret = internal_secret.load_or_create(options.secret_file)
        listener = open_listener(options.host, options.port, share_port=True)
    except StartupError as error:
        _log.error("data proxy worker cannot start", reason=str(error))
        sys.exit(CANNOT_START)
    uvloop.run(_serve(options, secret, listener))


async def _serve(options: WorkerOptions, secret: str, listener: socket.socket) -> None:
    resumer = ResumeClient(options.api_address, secret)
    worker = Worker(secret, feed_socket=options.socket, resumer=resumer)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await worker.engine.serve(listener)
    tasks = [
        asyncio.create_task(worker.follow()),
        asyncio.create_task(_keep_log_small()),
    ]
    _log.info("data proxy worker serves", address=f"{options.host}:{options.port}")
    await stop.wait()
    # The feed is followed while draining: a sandbox that ends now still ends its streams.
    cut = await worker.engine.drain(options.drain_timeout)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await resumer.close()
    _log.info("data proxy worker ended", connections_cut=cut)


async def _keep_log_small() -> None:
    while True:
        # A full disk now is no reason to give up: the next round tries again.
        with contextlib.suppress(OSError):
            logbound.rotate_stderr()
        await asyncio.sleep(_ROTATE_EVERY)


def _parse(arguments: list[str]) -> WorkerOptions:
    parser = argparse.ArgumentParser(prog="python -m emberbox.orchestrator.data_proxy")
    parser.add_argument("--socket", type=Path, required=True, help="the route feed")
    parser.add_argument("--secret-file", type=Path, required=True, help="shown by client proxies")
    parser.add_argument("--api", required=True, help="host:port of the API server's internal gRPC")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DATA_PROXY_PORT)
    parser.add_argument("--drain-timeout", type=float, default=10.0, help="seconds")
    given = parser.parse_args(arguments)
    return WorkerOptions(
        socket=given.socket.absolute(),
        secret_file=given.secret_file.absolute(),
        api_address=given.api,
        host=given.host,
        port=given.port,
        drain_timeout=given.drain_timeout,
    )
