"""Settings of the orchestrator."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from emberbox.orchestrator.network.addresses import DEFAULT_DNS_PORT, DEFAULT_RANGE
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import DATA_PROXY_PORT, ORCHESTRATOR_PORT


class Settings(BaseSettings):
    """Every value can be given as `EMBERBOX_<NAME>`; flags of the command line win over it."""

    model_config = SettingsConfigDict(env_prefix="EMBERBOX_", frozen=True)

    home: Path = Field(default_factory=default_home)
    node_id: str = Field(default_factory=lambda: socket.gethostname().split(".")[0])
    internal_secret_file: Path | None = None
    host: str = Field("127.0.0.1", validation_alias="EMBERBOX_ORCHESTRATOR_HOST")
    port: int = Field(ORCHESTRATOR_PORT, validation_alias="EMBERBOX_ORCHESTRATOR_PORT")
    data_host: str = "127.0.0.1"
    data_port: int = DATA_PROXY_PORT
    data_workers: int = 1
    driver: str = "auto"
    # The first of the unprivileged uids that VMMs run as; a slot's index is added to it.
    uid_base: int = 700_000
    slot_pool: int = 4
    network_range: IPv4Network = DEFAULT_RANGE
    # Closed ranges that sandboxes may reach all the same: CIDRs with commas between them.
    dns_port: int = DEFAULT_DNS_PORT
    egress_allow: Annotated[tuple[IPv4Network, ...], NoDecode] = ()
    max_sandboxes: int = 200
    memory_overcommit: float = 4.0
    memory_reserve_mb: int = 512
    disk_reserve_mb: int = 2048
    concurrent_starts: int = Field(default_factory=lambda: 2 * (os.cpu_count() or 1))
    template_vcpu: int = 2
    template_ram_mb: int = 512
    template_disk_mb: int = 10240

    @field_validator("egress_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @property
    def paths(self) -> Home:
        """The files under the home directory."""
        return Home(self.home)

    @property
    def secret_file(self) -> Path:
        """Where the secret between our programs is."""
        return self.internal_secret_file or self.paths.internal_secret
