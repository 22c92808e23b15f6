"""Settings of the API server: environment variables `EMBERBOX_…`, or arguments."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from emberbox.api_server.rate_limits import RateLimit
from emberbox.shared.addresses import parse_address
from emberbox.shared.home import Home, default_home
from emberbox.shared.lists import parts_of
from emberbox.shared.protocol import API_INTERNAL_PORT, API_PORT, ORCHESTRATOR_PORT

MIB = 1024 * 1024


class Settings(BaseSettings):
    """What an operator can set. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(
        env_prefix="EMBERBOX_", frozen=True, extra="ignore", populate_by_name=True
    )

    home: Path = Field(default_factory=default_home)
    host: str = Field(default="127.0.0.1", validation_alias="EMBERBOX_API_HOST")
    port: int = Field(default=API_PORT, ge=0, le=65535, validation_alias="EMBERBOX_API_PORT")
    internal_host: str = Field(default="127.0.0.1", validation_alias="EMBERBOX_API_INTERNAL_HOST")
    internal_port: int = Field(
        default=API_INTERNAL_PORT,
        ge=0,
        le=65535,
        validation_alias="EMBERBOX_API_INTERNAL_PORT",
        description="gRPC for our own proxies",
    )
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        validation_alias="EMBERBOX_API_METRICS_PORT",
        description="HTTP for Prometheus; none: not served",
    )
    database_url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite under home")
    redis_url: str = Field(
        default="", description="redis://[:password@]host[:port][/number]; empty: one machine"
    )
    rate_limits: dict[str, RateLimit] = Field(
        default_factory=dict,
        description='JSON: {"POST /v2/sandboxes": {"rate": 50, "burst": 100, "period": 1}}; '
        '"*" is every route that is not named',
    )
    orchestrators: str = Field(
        default=f"127.0.0.1:{ORCHESTRATOR_PORT}",
        description="gRPC addresses of hosts, separated by commas; empty: those that say they are "
        "there",
    )
    internal_secret_file: Path | None = None
    domain: str | None = Field(default=None, description="returned to clients; none: their own")
    default_timeout_v1: int = Field(default=15, gt=0)
    default_timeout_v2: int = Field(default=300, gt=0)
    max_body_bytes: int = Field(default=16 * MIB, gt=0)
    connect_timeout: float = Field(default=2.0, gt=0, description="reaching an orchestrator")
    call_timeout: float = Field(default=10.0, gt=0, description="quick calls to an orchestrator")
    create_timeout: float = Field(default=60.0, gt=0, description="starting one sandbox")
    pause_timeout: float = Field(
        default=120.0, gt=0, description="writing one sandbox to disk, or a snapshot of it"
    )
    node_silent_after: float = Field(
        default=30.0, gt=0, description="nothing heard of a node until it is unreachable"
    )
    lease_grace: float = Field(
        default=60.0,
        ge=0,
        description="after its deadline, until a sandbox of an unreachable node holds no quota",
    )
    reconcile_interval: float = Field(default=5.0, gt=0)
    lost_grace: float = Field(default=10.0, ge=0, description="absent from its host until lost")
    orphan_grace: float = Field(default=60.0, ge=0, description="unknown on a host until ended")
    history_days: int = Field(default=30, gt=0, description="ended sandboxes are forgotten after")

    @field_validator("orchestrators")
    @classmethod
    def _addresses_are_whole(cls, value: str) -> str:
        for address in parts_of(value):
            try:
                parse_address(address)
            except ValueError as error:
                raise ValueError(f"EMBERBOX_ORCHESTRATORS: {error}") from error
        return value

    @property
    def orchestrator_addresses(self) -> tuple[str, ...]:
        """The hosts' gRPC addresses, in the order given."""
        return tuple(parts_of(self.orchestrators))

    @property
    def database(self) -> str:
        """The database URL, with the default filled in."""
        return self.database_url or f"sqlite+aiosqlite:///{Home(self.home).database}"

    @property
    def secret_path(self) -> Path:
        """The file with the secret that our own programs show one another."""
        return self.internal_secret_file or Home(self.home).internal_secret
