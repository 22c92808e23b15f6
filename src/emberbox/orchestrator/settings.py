"""Settings of the orchestrator."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from emberbox.orchestrator.images import OwnKernel
from emberbox.orchestrator.machines.firecracker.calls import Rates
from emberbox.orchestrator.machines.firecracker.installation import Options
from emberbox.orchestrator.network.addresses import (
    DEFAULT_DNS_PORT,
    DEFAULT_RANGE,
    NodeNetwork,
)
from emberbox.orchestrator.node_info import NodeIdentity
from emberbox.shared.addresses import parse_addresses
from emberbox.shared.home import Home, default_home
from emberbox.shared.labels import parse_labels
from emberbox.shared.lists import parts_of
from emberbox.shared.protocol import API_INTERNAL_PORT, DATA_PROXY_PORT, ORCHESTRATOR_PORT

_FIRST_UID = 700_000
_UIDS_OF_A_NODE = 1 << 15
_UID_RANGES = 1 << 14
_EVERYWHERE = frozenset({"0.0.0.0", "::", "[::]"})


class Settings(BaseSettings):
    """Every value can be given as `EMBERBOX_<NAME>`; flags of the command line win over it."""

    model_config = SettingsConfigDict(env_prefix="EMBERBOX_", frozen=True)

    home: Path = Field(default_factory=default_home)
    node_id: str = Field(default_factory=lambda: socket.gethostname().split(".")[0])
    internal_secret_file: Path | None = None
    host: str = Field("127.0.0.1", validation_alias="EMBERBOX_ORCHESTRATOR_HOST")
    port: int = Field(
        ORCHESTRATOR_PORT, ge=1, le=65535, validation_alias="EMBERBOX_ORCHESTRATOR_PORT"
    )
    # Where others reach this host, without a port; by default where it listens.
    advertise_address: str = ""
    # host:port of the API servers' internal gRPC, with commas. They are told that this host is
    # there, and asked by its data proxy to resume a sandbox that traffic has come for.
    api_internal_address: str = f"127.0.0.1:{API_INTERNAL_PORT}"
    heartbeat_interval: float = Field(5.0, gt=0)
    # A directory that other hosts see too: paused sandboxes are kept there, and run directories,
    # so that another host can resume them.
    shared_directory: Path | None = None
    # name=value, with commas: what placement can ask for.
    node_labels: str = ""
    data_host: str = "127.0.0.1"
    data_port: int = Field(DATA_PROXY_PORT, ge=1, le=65535)
    data_workers: int = Field(1, ge=1, le=64)
    # Where Prometheus finds what the data proxy counted; by default the port above `data_port`.
    data_metrics_port: int | None = Field(None, ge=1, le=65535)
    # Connections of client proxies, and requests of one sandbox at a time (0: no limit), for each
    # worker.
    data_max_connections: int = Field(8192, gt=0)
    data_max_per_sandbox: int = Field(1024, ge=0)
    # One line for each request; None: no log.
    data_access_log: Path | None = None
    metrics_host: str = "127.0.0.1"
    # HTTP for Prometheus; without a port it is not served.
    metrics_port: int | None = Field(
        None, ge=0, le=65535, validation_alias="EMBERBOX_ORCHESTRATOR_METRICS_PORT"
    )
    driver: str = "auto"
    # The programs of Firecracker, by default those on PATH; without its jailer a VMM is less
    # confined.
    firecracker: Path | None = None
    jailer: Path | None = None
    firecracker_jail: bool = True
    # What one VM under Firecracker may move in a second, in each direction; 0: no limit.
    firecracker_disk_mb: int = Field(0, ge=0)
    firecracker_disk_operations: int = Field(0, ge=0)
    firecracker_network_mb: int = Field(0, ge=0)
    # The first of the unprivileged uids that VMMs run as; a slot's index is added to it. By default
    # it follows from the node id, so that two nodes on one machine do not share uids.
    uid_base: int | None = Field(None, ge=100_000, le=2_000_000_000)
    slot_pool: int = Field(4, ge=0, le=256)
    network_range: IPv4Network = DEFAULT_RANGE
    dns_port: int = Field(DEFAULT_DNS_PORT, ge=1, le=65535)
    # Where the host's resolvers are named, in the form of resolv.conf(5).
    resolv_conf: Path = Path("/etc/resolv.conf")
    # Mbit/s that a sandbox may send, and as much that it may receive; none: unlimited.
    bandwidth_mbit: float | None = Field(None, ge=0.1, le=100_000)
    # Closed ranges that sandboxes may reach all the same: CIDRs with commas between them.
    egress_allow: Annotated[tuple[IPv4Network, ...], NoDecode] = ()
    max_sandboxes: int = Field(200, ge=0)
    memory_overcommit: float = Field(4.0, gt=0)
    memory_reserve_mb: int = Field(512, ge=0)
    disk_reserve_mb: int = Field(2048, ge=0)
    # Starts that go on at once, and seconds that one may wait for its turn.
    concurrent_starts: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    start_wait: float = Field(30.0, gt=0)
    # Warm clones of a template: at most, at least, and seconds in which one is not needed after
    # which there is one fewer.
    pool_size: int = Field(4, ge=0, le=256)
    pool_least: int = Field(1, ge=0, le=256)
    pool_idle: float = Field(300.0, gt=0)
    # Where control groups are made: a group of cgroup v2, "auto" or "none".
    cgroup_parent: str = "auto"
    # What a VM may read from disk, and write, in a second; 0: as much as it likes.
    vm_io_mb_s: int = Field(0, ge=0)
    template_vcpu: int = Field(2, ge=1, le=32)
    template_ram_mb: int = Field(512, ge=256)
    template_disk_mb: int = Field(10240, ge=256)
    # A kernel of the operator's, and the directory of its modules, instead of Debian's.
    kernel: Path | None = None
    kernel_modules: Path | None = None

    # Seconds between two samples of what a sandbox uses.
    metrics_interval: float = Field(10.0, ge=1)
    # Logs of ended sandboxes: kept for so many days, of so many sandboxes, so much of each.
    sandbox_log_days: float = Field(7.0, ge=0)
    sandbox_log_count: int = Field(1000, ge=0)
    # The end with its console must fit into half of it, and all of it into one gRPC message.
    sandbox_log_kb: int = Field(64, ge=64, le=2048)

    @field_validator("network_range")
    @classmethod
    def _check_range(cls, value: IPv4Network) -> IPv4Network:
        NodeNetwork("check", value)
        return value

    @field_validator("api_internal_address")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        parse_addresses(value)
        return value

    @field_validator("egress_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(parts_of(value)) if isinstance(value, str) else value

    @field_validator("node_labels")
    @classmethod
    def _labels_are_pairs(cls, value: str) -> str:
        parse_labels(value)
        return value

    def identity(self, shared_id: str) -> NodeIdentity:
        """How this host introduces itself. `shared_id` names what it shares with others."""
        return NodeIdentity(
            node_id=self.node_id,
            address=f"{self._reached(self.host)}:{self.port}",
            data_address=f"{self._reached(self.data_host)}:{self.data_port}",
            labels=parse_labels(self.node_labels),
            shared_directory=shared_id,
        )

    def _reached(self, listens_on: str) -> str:
        if self.advertise_address:
            return self.advertise_address
        return socket.gethostname() if listens_on in _EVERYWHERE else listens_on

    @property
    def network(self) -> NodeNetwork:
        """Names and addresses of this node."""
        bandwidth = None if self.bandwidth_mbit is None else int(self.bandwidth_mbit * 125_000)
        return NodeNetwork.of_node(
            self.node_id, self.network_range, self.egress_allow, self.dns_port, bandwidth
        )

    @property
    def first_uid(self) -> int:
        """`uid_base`, or a range of this node's own."""
        if self.uid_base is not None:
            return self.uid_base
        return _FIRST_UID + int(self.network.tag, 16) % _UID_RANGES * _UIDS_OF_A_NODE

    @property
    def firecracker_options(self) -> Options:
        """How Firecracker is run, where it is."""
        return Options(
            self.firecracker,
            self.jailer,
            self.firecracker_jail,
            Rates(
                self.firecracker_disk_mb,
                self.firecracker_disk_operations,
                self.firecracker_network_mb,
            ),
            self.paths.orchestrator / "firecracker",
        )

    @property
    def own_kernel(self) -> OwnKernel | None:
        """The operator's kernel, if one is set."""
        return OwnKernel(self.kernel, self.kernel_modules) if self.kernel else None

    @property
    def paths(self) -> Home:
        """The files under the home directory."""
        return Home(self.home)

    @property
    def secret_file(self) -> Path:
        """Where the secret between our programs is."""
        return self.internal_secret_file or self.paths.internal_secret
