"""What `up` runs with: its flags, and the settings of the programs that it must know itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.cli.servers import load_settings
from emberbox.shared.protocol import (
    API_INTERNAL_PORT,
    API_PORT,
    CLIENT_PROXY_PORT,
    DATA_PROXY_PORT,
    ORCHESTRATOR_PORT,
)

if TYPE_CHECKING:
    from emberbox.orchestrator.images import OwnKernel
    from emberbox.shared.home import Home

LOOPBACK = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Hosts:
    """The address that each program listens on."""

    api: str = LOOPBACK
    api_internal: str = LOOPBACK
    proxy: str = LOOPBACK
    health: str = LOOPBACK
    orchestrator: str = LOOPBACK
    data: str = LOOPBACK


@dataclass(frozen=True, slots=True)
class Node:
    """Settings of the orchestrator that decide whether this machine has room."""

    disk_reserve_mb: int = 2048
    own_kernel: OwnKernel | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line of `up` and the environment say."""

    home: Home
    api_port: int = API_PORT
    api_internal_port: int = API_INTERNAL_PORT
    proxy_port: int = CLIENT_PROXY_PORT
    orchestrator_port: int = ORCHESTRATOR_PORT
    data_port: int = DATA_PROXY_PORT
    workers: int | None = None
    keep: bool = False
    json: bool = False
    hosts: Hosts = Hosts()
    node: Node = Node()

    @property
    def health_port(self) -> int:
        """Where the client proxy answers /health: beside its port, as 3003 is beside 3002."""
        return self.proxy_port + 1

    @property
    def api_url(self) -> str:
        """Base URL of the REST API."""
        return f"http://{reached(self.hosts.api)}:{self.api_port}"

    @property
    def api_internal_address(self) -> str:
        """host:port of the API server's gRPC for our own proxies."""
        return f"{reached(self.hosts.api_internal)}:{self.api_internal_port}"

    @property
    def sandbox_url(self) -> str:
        """Base URL of traffic into sandboxes."""
        return f"http://{reached(self.hosts.proxy)}:{self.proxy_port}"

    @property
    def orchestrator_address(self) -> str:
        """host:port of the orchestrator's gRPC."""
        return f"{reached(self.hosts.orchestrator)}:{self.orchestrator_port}"

    @property
    def data_address(self) -> str:
        """host:port of the data proxy."""
        return f"{reached(self.hosts.data)}:{self.data_port}"

    @property
    def secret_file(self) -> Path:
        """The secret the programs share."""
        configured = os.environ.get("EMBERBOX_INTERNAL_SECRET_FILE")
        return Path(configured) if configured else self.home.internal_secret


def reached(host: str) -> str:
    """The address at which a program of this machine reaches one that listens on `host`."""
    return LOOPBACK if host == _EVERYWHERE else host


def read_settings() -> tuple[Hosts, Node]:
    """From the environment, as the programs will read it. Raises StartupError."""
    from emberbox.api_server.settings import Settings as Api  # noqa: PLC0415 - not for `--help`
    from emberbox.client_proxy.settings import Settings as Proxy  # noqa: PLC0415
    from emberbox.orchestrator.settings import Settings as Orchestrator  # noqa: PLC0415

    api, proxy, node = load_settings(Api), load_settings(Proxy), load_settings(Orchestrator)
    hosts = Hosts(
        api=api.host,
        api_internal=api.internal_host,
        proxy=proxy.host,
        health=proxy.health_host,
        orchestrator=node.host,
        data=node.data_host,
    )
    return hosts, Node(node.disk_reserve_mb, node.own_kernel)
