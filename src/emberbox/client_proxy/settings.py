"""Settings of the client proxy: environment variables `EMBERBOX_…`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from emberbox.shared.addresses import parse_address, parse_addresses
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import (
    API_INTERNAL_PORT,
    CLIENT_PROXY_HEALTH_PORT,
    CLIENT_PROXY_PORT,
    DATA_PROXY_PORT,
)


class Settings(BaseSettings):
    """What an operator can set. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(
        env_prefix="EMBERBOX_", frozen=True, extra="ignore", populate_by_name=True
    )

    home: Path = Field(default_factory=default_home)
    internal_secret_file: Path | None = None
    host: str = Field(default="127.0.0.1", validation_alias="EMBERBOX_PROXY_HOST")
    port: int = Field(
        default=CLIENT_PROXY_PORT, ge=0, le=65535, validation_alias="EMBERBOX_PROXY_PORT"
    )
    health_host: str = Field(default="127.0.0.1", validation_alias="EMBERBOX_PROXY_HEALTH_HOST")
    health_port: int = Field(
        default=CLIENT_PROXY_HEALTH_PORT,
        ge=0,
        le=65535,
        validation_alias="EMBERBOX_PROXY_HEALTH_PORT",
    )
    data_proxy_address: str = Field(
        default=f"127.0.0.1:{DATA_PROXY_PORT}", description="host:port of the one host there is"
    )
    redis_url: str = Field(
        default="", description="of the catalog, where there are many hosts; empty: one host"
    )
    api_internal_address: str = Field(
        default=f"127.0.0.1:{API_INTERNAL_PORT}",
        description="host:port of the API servers' internal gRPC, with commas: asked for what the "
        "catalog does not have",
    )
    drain_timeout: float = Field(
        default=10.0, ge=0, validation_alias="EMBERBOX_PROXY_DRAIN_TIMEOUT"
    )
    """How long SIGTERM lets streams finish."""
    max_head_bytes: int = Field(
        default=32 * 1024, gt=0, validation_alias="EMBERBOX_PROXY_MAX_HEAD_BYTES"
    )
    header_timeout: float = Field(
        default=30.0, gt=0, validation_alias="EMBERBOX_PROXY_HEADER_TIMEOUT"
    )
    workers: int = Field(default=1, ge=1, le=64, validation_alias="EMBERBOX_PROXY_WORKERS")
    tls_cert: Path | None = Field(default=None, validation_alias="EMBERBOX_PROXY_TLS_CERT")
    tls_key: Path | None = Field(default=None, validation_alias="EMBERBOX_PROXY_TLS_KEY")
    """PEM files; with them clients speak TLS, at `tls_port` or, when there is none, at `port`."""
    tls_port: int | None = Field(
        default=None, ge=1, le=65535, validation_alias="EMBERBOX_PROXY_TLS_PORT"
    )
    max_connections: int = Field(
        default=8192, gt=0, validation_alias="EMBERBOX_PROXY_MAX_CONNECTIONS"
    )
    """Of clients, for each worker."""
    max_connections_per_client: int = Field(
        default=1024, ge=0, validation_alias="EMBERBOX_PROXY_MAX_CONNECTIONS_PER_CLIENT"
    )
    """For each worker; 0: no limit."""
    access_log: Path | None = Field(default=None, validation_alias="EMBERBOX_PROXY_ACCESS_LOG")
    """One line for each request; None: no log."""
    idle_timeout: float = Field(default=620.0, gt=0, validation_alias="EMBERBOX_PROXY_IDLE_TIMEOUT")

    @field_validator("data_proxy_address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parse_address(value)
        return value

    @field_validator("api_internal_address")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        parse_addresses(value)
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("EMBERBOX_PROXY_TLS_CERT and EMBERBOX_PROXY_TLS_KEY go together")
        if self.tls_port is not None and self.tls_cert is None:
            raise ValueError("EMBERBOX_PROXY_TLS_PORT needs EMBERBOX_PROXY_TLS_CERT")
        return self

    @property
    def ports(self) -> list[tuple[int, bool]]:
        """Where clients are served, and whether by TLS."""
        if self.tls_port is None:
            return [(self.port, self.tls_cert is not None)]
        return [(self.port, False), (self.tls_port, True)]

    @property
    def secret_path(self) -> Path:
        """The file with the secret shown to the data proxies."""
        return self.internal_secret_file or Home(self.home).internal_secret
