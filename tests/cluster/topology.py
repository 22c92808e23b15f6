"""A whole cluster on one machine: Postgres, Redis, nginx, API servers, client proxies and hosts."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberbox.shared import internal_secret
from tests.cluster.hosts import BRIDGE_ADDRESS, Bridge, Host
from tests.programs import Program
from tests.services import Nginx, Postgres, Redis
from tests.stack import output_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import FreePorts

_API_SERVERS, _PROXIES, _HOSTS = 3, 2, 3
_READY_SECONDS = 300
_EXAMPLE = Path(__file__).parents[2] / "deploy" / "nginx" / "emberbox.conf"
_DATABASE = "emberbox"


class Cluster:
    """All of it; `settings` go into the environment of every program."""

    def __init__(self, root: Path, free_ports: FreePorts, **settings: str) -> None:
        self.root = root
        secret = root / "secret"
        internal_secret.load_or_create(secret)
        ports = free_ports(postgres=1, redis=1, nginx=2, api=2 * _API_SERVERS, proxy=2 * _PROXIES)
        postgres, redis, nginx, api, proxy = ports
        self.postgres, self.redis = Postgres(postgres), Redis(redis)
        api_ports = [api + 2 * n for n in range(_API_SERVERS)]
        proxy_ports = [proxy + 2 * n for n in range(_PROXIES)]
        self.nginx = Nginx(nginx, _config(nginx, api_ports, proxy_ports))
        self.environment = {
            **os.environ,
            "EMBERBOX_HOME": str(root / "api"),
            "EMBERBOX_INTERNAL_SECRET_FILE": str(secret),
            "EMBERBOX_DATABASE_URL": self.postgres.url(_DATABASE),
            "EMBERBOX_REDIS_URL": self.redis.url,
            "EMBERBOX_ORCHESTRATORS": "",
            "EMBERBOX_API_INTERNAL_HOST": BRIDGE_ADDRESS,
            "EMBERBOX_API_INTERNAL_ADDRESS": ",".join(
                f"{BRIDGE_ADDRESS}:{port + 1}" for port in api_ports
            ),
            "EMBERBOX_SHARED_DIRECTORY": str(root / "shared"),
            **settings,
        }
        self.api_servers = [
            self._program("api-server", port, "--internal-port", port + 1) for port in api_ports
        ]
        self.proxies = [
            self._program("client-proxy", port, "--health-port", port + 1) for port in proxy_ports
        ]
        self.hosts = [Host(n, root / f"host-{n}", secret, self.environment) for n in range(_HOSTS)]
        self._bridge = Bridge()

    def start(self) -> None:
        """Start everything and wait until sandboxes can be made."""
        self.postgres.start()
        self.postgres.sql(f"CREATE DATABASE {_DATABASE}")
        self.redis.start()
        self._bridge.start()
        for host in self.hosts:
            host.connect()
        first, *others = self.hosts
        first.program.start()
        for program in (*self.api_servers, *self.proxies):
            program.start()
        self.nginx.start()
        wait_until(first.ready, _READY_SECONDS)
        for host in others:
            host.take_templates_of(first)
            host.program.start()
        wait_until(lambda: all(host.ready() for host in self.hosts), _READY_SECONDS)
        wait_until(self.api_answers, _READY_SECONDS)
        wait_until(lambda: len(self.nodes()) == _HOSTS, 30)

    def stop(self) -> None:
        """End everything, whatever has happened, and leave nothing."""
        try:
            for host in self.hosts:
                host.shut_down()
            for program in (*self.api_servers, *self.proxies):
                if program.runs:
                    program.end()
        finally:
            self._bridge.remove()
            for service in (self.nginx, self.redis, self.postgres):
                service.remove()

    @property
    def api_url(self) -> str:
        """The load balancer of the API."""
        return f"http://127.0.0.1:{self.nginx.port}"

    @property
    def sdk(self) -> dict[str, Any]:
        """Options of the SDK that reach the load balancers."""
        return {
            "api_key": (self.root / "api" / "api_key").read_text().strip(),
            "api_url": self.api_url,
            "sandbox_url": f"http://127.0.0.1:{self.nginx.port + 1}",
        }

    def api_answers(self) -> bool:
        """Whether an API server does, through the load balancer."""
        try:
            with urllib.request.urlopen(f"{self.api_url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def nodes(self) -> list[str]:
        """The nodes that the database has, with their states of readiness."""
        return self.postgres.sql("SELECT node_id FROM nodes WHERE ready", _DATABASE).split()

    def records(self) -> dict[str, str]:
        """Execution ids by sandbox id of the records that hold quota."""
        states = "'creating', 'running', 'pausing', 'resuming', 'killing'"
        query = f"SELECT sandbox_id, execution_id FROM sandboxes WHERE state IN ({states})"
        return dict(_pairs(self.postgres.sql(query, _DATABASE)))

    def state_of(self, sandbox_id: str) -> str:
        """What its record says."""
        query = f"SELECT state FROM sandboxes WHERE sandbox_id = '{sandbox_id}'"
        return self.postgres.sql(query, _DATABASE).strip()

    def host_of(self, sandbox_id: str) -> Host:
        """Where it is by its record."""
        query = f"SELECT node_id FROM sandboxes WHERE sandbox_id = '{sandbox_id}'"
        node_id = self.postgres.sql(query, _DATABASE).strip()
        return next(host for host in self.hosts if host.node_id == node_id)

    def catalog(self) -> dict[str, str]:
        """Execution ids by sandbox id of the entries in Redis."""
        keys = self.redis.command("KEYS", "emberbox:catalog:*").split()
        if not keys:
            return {}
        entries = self.redis.command("MGET", *keys).splitlines()
        ids = (key.rpartition(":")[2] for key in keys)
        return {one: entry.split()[0] for one, entry in zip(ids, entries, strict=True) if entry}

    def on_hosts(self) -> dict[str, str]:
        """Execution ids by sandbox id of what the hosts have. Raises grpc.RpcError."""
        return {key: value for host in self.hosts for key, value in host.running().items()}

    def emberbox(self, *arguments: str) -> str:
        """What a command prints that works on the cluster's database."""
        return output_of(*arguments, environment=self.environment)

    def _program(self, name: str, port: int, *more: object) -> Program:
        arguments = ["--port", str(port), *map(str, more)]
        return Program(name, arguments, self.environment, self.root / f"{name}-{port}.log")


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        first, second = line.split("\t")
        yield first, second


def _config(port: int, api_ports: list[int], proxy_ports: list[int]) -> str:
    """The example of the documentation, with the addresses of this machine."""
    text = _EXAMPLE.read_text()
    for upstream, ports in (("emberbox_api", api_ports), ("emberbox_proxy", proxy_ports)):
        servers = "\n".join(f"    server 127.0.0.1:{one} max_fails=0;" for one in ports)
        pattern = rf"(upstream {upstream} {{).*?(    keepalive)"
        text = re.sub(pattern, rf"\1\n{servers}\n\2", text, flags=re.DOTALL)
    for shown, used in ((3000, port), (3002, port + 1)):
        text = text.replace(f"listen {shown};", f"listen 127.0.0.1:{used};")
    return text
