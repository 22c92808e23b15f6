"""Puts the daemon together and serves it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvicorn

from emberbox.envd.app import Application
from emberbox.envd.bridge import Bridges
from emberbox.envd.connection import Connection
from emberbox.envd.cors import Cors
from emberbox.envd.filesystem_service import FilesystemService
from emberbox.envd.host_calls import HostCalls
from emberbox.envd.init import Initializer
from emberbox.envd.logbook import Logbook, LogbookHandler
from emberbox.envd.metrics import Metrics
from emberbox.envd.process_service import ProcessService
from emberbox.envd.processes import Processes
from emberbox.envd.spawn import Spawner, keep_descriptors
from emberbox.envd.state import State
from emberbox.envd.system import System
from emberbox.envd.telemetry import Telemetry
from emberbox.envd.users import Users
from emberbox.envd.workers import Workers

if TYPE_CHECKING:
    from emberbox.envd.cgroups import Cgroups

logger = logging.getLogger(__name__)
_envd_logger = logging.getLogger("emberbox.envd")

_KEEP_ALIVE = 700
"""Seconds; longer than the 640 for which proxies keep idle connections to us."""

_TCP_NOTSENT_LOWAT = 25  # not in Python's socket module
_UNSENT_BYTES = 128 * 1024
"""Per connection, in the kernel. Without a limit it takes megabytes for each client that stopped
reading, of a memory that is small."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    port: int = 49983
    address: str = "0.0.0.0"
    init_peers: tuple[str, ...] = ("169.254.0.22",)
    guest_address: str = "169.254.0.21"


class _IdleServer(uvicorn.Server):
    """uvicorn's own main loop wakes ten times a second; thousands of idle guests would notice."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listener in server.sockets:  # the sockets that it accepts have its options
                listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._wake.wait()

    def stop(self) -> None:
        """From any thread."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)


@dataclass
class Envd:
    """The daemon. `serve` runs on its own thread: see `identity` for why not on the main one."""

    settings: Settings
    state: State = field(default_factory=State)
    system: System = field(default_factory=System)
    cgroups: Cgroups | None = None

    def __post_init__(self) -> None:
        users = Users()
        self._workers = Workers(users)
        logbook = Logbook()
        self._log_handler = LogbookHandler(logbook)
        telemetry = Telemetry(logbook, self.settings.init_peers)
        self.processes = Processes(Spawner(self.cgroups), logbook)
        initializer = Initializer(self.state, self.system, self.settings.init_peers, telemetry)
        self._host_calls = HostCalls(self.state, self.system, initializer, telemetry)
        self.bridges = Bridges(self.settings.guest_address, self.settings.port)
        self.app = Application(
            state=self.state,
            workers=self._workers,
            processes=ProcessService(self.processes, users, self.state),
            filesystem=FilesystemService(self.state, self._workers),
            initializer=initializer,
            bridges=self.bridges,
            metrics=Metrics(),
            telemetry=telemetry,
        )
        self._server = _IdleServer(
            uvicorn.Config(
                Cors(self.app),
                host=self.settings.address,
                port=self.settings.port,
                http=Connection,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=1,
            )
        )

    def run(self, listener: socket.socket | None = None) -> threading.Thread:
        """Starts the serving thread. `listener` is used instead of address and port."""
        keep_descriptors()
        os.umask(0o022)  # modes in the protocol are those of new files under this mask
        sockets = [listener] if listener else None
        thread = threading.Thread(target=self._serve, args=(sockets,), name="envd")
        thread.start()
        return thread

    def stop(self) -> None:
        """From any thread. Processes go on."""
        self._server.stop()

    @property
    def served(self) -> bool:
        """Whether it ever listened; false when the port was taken."""
        return self._server.started

    def _serve(self, sockets: list[socket.socket] | None) -> None:
        try:
            asyncio.run(self._serve_until_stopped(sockets))
        finally:
            self.processes.close()

    async def _serve_until_stopped(self, sockets: list[socket.socket] | None) -> None:
        _envd_logger.addHandler(self._log_handler)
        own = (self.settings.address, self.settings.port)
        self._host_calls.open(asyncio.get_running_loop(), own, self.settings.init_peers[0])
        try:
            await self._server.serve(sockets)
        finally:
            self._host_calls.close()
            _envd_logger.removeHandler(self._log_handler)
            self.bridges.close_all()
            self._workers.close()
