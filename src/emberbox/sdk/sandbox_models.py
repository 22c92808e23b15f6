"""What the control plane tells about sandboxes, and what it is asked. No I/O."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, TypedDict

from .errors import InvalidArgumentException
from .json_fields import (
    JsonObject,
    flag_or_none,
    integer,
    nested,
    repeated,
    required,
    text,
    text_map,
    text_or_none,
    time,
)
from .network_models import network_info

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .network_models import SandboxNetworkInfo

SandboxListOrder = Literal["asc", "desc"]
SandboxOnResume = Literal["restore", "reboot"]


class SandboxState(StrEnum):
    """State of a sandbox."""

    RUNNING = "running"
    PAUSED = "paused"


class SandboxInfoLifecycle(TypedDict):
    """What happens to the sandbox at its end time."""

    on_timeout: Literal["pause", "kill"]
    auto_resume: bool


@dataclass
class SandboxInfo:
    """A sandbox as the control plane sees it. Times are aware."""

    sandbox_id: str
    sandbox_domain: str | None
    template_id: str
    name: str | None
    """Name of the template."""
    metadata: dict[str, str]
    started_at: datetime
    end_at: datetime
    state: SandboxState
    cpu_count: int
    memory_mb: int
    """RAM in MiB."""
    envd_version: str
    allow_internet_access: bool | None = None
    network: SandboxNetworkInfo | None = None
    lifecycle: SandboxInfoLifecycle | None = None
    volume_mounts: list[dict[str, str]] = field(default_factory=list)
    envd_unresponsive_at_pause: bool | None = None
    """True for a paused sandbox that can be connected to with `on_resume="reboot"` only."""

    @classmethod
    def from_json(cls, record: JsonObject) -> SandboxInfo:
        """From `SandboxDetail` or `ListedSandbox`. Raises SandboxException when ids lack."""
        return cls(
            sandbox_id=required(record, "sandboxID"),
            sandbox_domain=text_or_none(record, "domain"),
            template_id=required(record, "templateID"),
            name=text_or_none(record, "alias"),
            metadata=text_map(record, "metadata"),
            started_at=time(record, "startedAt"),
            end_at=time(record, "endAt"),
            state=SandboxState(text(record, "state") or "running"),
            cpu_count=integer(record, "cpuCount"),
            memory_mb=integer(record, "memoryMB"),
            envd_version=text(record, "envdVersion"),
            allow_internet_access=flag_or_none(record, "allowInternetAccess"),
            network=network_info(nested(record, "network")),
            lifecycle=_lifecycle(record),
            volume_mounts=[
                {"name": text(mount, "name"), "path": text(mount, "path")}
                for mount in repeated(record, "volumeMounts")
            ],
            envd_unresponsive_at_pause=flag_or_none(record, "envdUnresponsiveAtPause"),
        )


@dataclass
class SandboxQuery:
    """Filters of `Sandbox.list`; all of them must hold."""

    metadata: dict[str, str] | None = None
    state: list[SandboxState] | None = None
    started_after: datetime | None = None
    """Naive times are taken as local."""
    template: str | None = None
    """Id or name."""


@dataclass(frozen=True)
class SandboxAccess:
    """What create and connect answer: which sandbox, and the tokens to reach it."""

    sandbox_id: str
    envd_version: str
    sandbox_domain: str | None
    envd_access_token: str | None
    traffic_access_token: str | None

    @classmethod
    def from_json(cls, record: JsonObject) -> SandboxAccess:
        """From `Sandbox`. Raises SandboxException when the id lacks."""
        return cls(
            sandbox_id=required(record, "sandboxID"),
            envd_version=text(record, "envdVersion"),
            sandbox_domain=text_or_none(record, "domain") or None,
            envd_access_token=text_or_none(record, "envdAccessToken") or None,
            traffic_access_token=text_or_none(record, "trafficAccessToken") or None,
        )


def create_body(
    template: str,
    timeout: int | None,
    metadata: Mapping[str, str] | None,
    envs: Mapping[str, str] | None,
    allow_internet_access: bool | None,
) -> dict[str, object]:
    """Body of `POST /v2/sandboxes`; what is not given is left to the server."""
    body: dict[str, object] = {
        "templateID": template,
        "metadata": dict(metadata or {}),
        "envVars": dict(envs or {}),
    }
    if timeout is not None:
        body["timeout"] = timeout
    if allow_internet_access is not None:
        body["allow_internet_access"] = allow_internet_access
    return body


def connect_body(timeout: int | None, on_resume: SandboxOnResume) -> dict[str, object]:
    """Body of `POST /v2/sandboxes/{id}/connect`. Raises InvalidArgumentException."""
    if on_resume not in ("restore", "reboot"):
        raise InvalidArgumentException(f"on_resume must be restore or reboot, got {on_resume!r}")
    body: dict[str, object] = {} if timeout is None else {"timeout": timeout}
    if on_resume == "reboot":
        body["memory"] = False
    return body


def list_parameters(
    query: SandboxQuery | None,
    limit: int | None,
    next_token: str | None,
    order: SandboxListOrder | None,
) -> dict[str, str]:
    """Query of `GET /v2/sandboxes`. Raises InvalidArgumentException for an unknown order."""
    if order not in (None, "asc", "desc"):
        raise InvalidArgumentException(f"order must be asc or desc, got {order!r}")
    query = query or SandboxQuery()
    started_after = query.started_after.astimezone().isoformat() if query.started_after else None
    parameters = {
        "metadata": _encode_metadata(query.metadata),
        "state": ",".join(SandboxState(state).value for state in query.state or ()),
        "startedAfter": started_after,
        "template": query.template,
        "order": order,
        "limit": str(limit) if limit else None,
        "nextToken": next_token,
    }
    return {name: value for name, value in parameters.items() if value}


def _encode_metadata(metadata: Mapping[str, str] | None) -> str:
    """A query string inside a query value: names and values are quoted once more first."""
    quoted = {
        urllib.parse.quote(name): urllib.parse.quote(value)
        for name, value in (metadata or {}).items()
    }
    return urllib.parse.urlencode(quoted)


def _lifecycle(record: JsonObject) -> SandboxInfoLifecycle | None:
    said = nested(record, "lifecycle")
    if said is None:
        return None
    return SandboxInfoLifecycle(
        on_timeout="pause" if text(said, "onTimeout") == "pause" else "kill",
        auto_resume=bool(flag_or_none(said, "autoResume")),
    )
