"""What the tables hold, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from emberbox.api_server.records.lifecycle import Record, State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a team may use; None is unlimited. Sizes in MiB."""

    concurrent_sandboxes: int | None = None
    max_length_hours: int | None = None
    max_vcpu: int | None = None
    max_ram_mb: int | None = None
    max_disk_mb: int | None = None
    total_vcpu: int | None = None
    total_ram_mb: int | None = None
    total_disk_mb: int | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(one.name for one in fields(cls))


@dataclass(frozen=True, slots=True)
class Team:
    """Who owns sandboxes and keys."""

    team_id: str
    name: str
    created_at: datetime
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without the key."""

    key_id: str
    team_id: str
    name: str
    mask: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Template:
    """What a sandbox is made from. Sizes in MiB."""

    template_id: str
    build_id: str
    names: tuple[str, ...]
    vcpu: int
    ram_mb: int
    disk_mb: int
    envd_version: str
    team_id: str | None = None

    @property
    def alias(self) -> str | None:
        """The name that clients are shown."""
        return self.names[0] if self.names else None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox, live or over."""

    sandbox_id: str
    team_id: str
    execution_id: str
    node_id: str
    state: State
    template_id: str
    template_name: str | None
    build_id: str
    vcpu: int
    ram_mb: int
    disk_mb: int
    envd_version: str
    secure: bool
    allow_internet_access: bool | None
    public_traffic: bool
    options: Mapping[str, JsonValue]
    metadata: Mapping[str, str]
    started_at: datetime
    end_at: datetime
    ended_at: datetime | None = None
    end_reason: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None

    @property
    def record(self) -> Record:
        """The part that the lifecycle decides on."""
        return Record(self.execution_id, self.state)
