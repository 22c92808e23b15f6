"""What the tables hold, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING

from emberbox.api_server.records.lifecycle import Record, State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

DEFAULT_TAG = "default"

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

    @property
    def of_all(self) -> bool:
        """Whether something bounds what all sandboxes together use."""
        bounds = (self.concurrent_sandboxes, self.total_vcpu, self.total_ram_mb, self.total_disk_mb)
        return any(bound is not None for bound in bounds)

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
    node_id: str | None = None
    """The one node that has it; None: any may."""
    memory: bool = True
    """False: its sandboxes boot from its files."""

    @property
    def alias(self) -> str | None:
        """The name that clients are shown."""
        return self.names[0] if self.names else None


class BuildState(StrEnum):
    """Stored as they are named."""

    MAKING = "making"
    """Its node writes it, or its first sandboxes are being made: not to be swept."""
    READY = "ready"
    DELETING = "deleting"
    """Nothing may be made of it any more; its node is asked to remove it until it has."""


@dataclass(frozen=True, slots=True)
class Build:
    """What a checkpoint of a sandbox made. Sizes in MiB, where the name does not say bytes."""

    build_id: str
    template_id: str
    node_id: str
    state: BuildState
    vcpu: int
    ram_mb: int
    disk_mb: int
    envd_version: str
    memory: bool
    origin_sandbox_id: str
    created_at: datetime
    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tagged build that clients can start sandboxes of."""

    template_id: str
    name: str | None
    """With its namespace."""
    tag: str
    created_at: datetime

    @property
    def snapshot_id(self) -> str:
        """What clients give for a template."""
        return f"{self.name or self.template_id}:{self.tag}"

    @property
    def names(self) -> list[str]:
        """For people; without the tag that is meant when none is given."""
        if self.name is None:
            return []
        return [self.name if self.tag == DEFAULT_TAG else self.snapshot_id]


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
    timeout: int
    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: bool = False
    shown_template_id: str | None = None
    paused_at: datetime | None = None
    paused_memory: bool | None = None
    notice: str | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None

    @property
    def boots_when_resumed(self) -> bool:
        """Whether only files are left of it while it is paused."""
        return self.paused_memory is False

    @property
    def record(self) -> Record:
        """The part that the lifecycle decides on."""
        return Record(self.execution_id, self.state)
