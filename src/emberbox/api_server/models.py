"""Bodies of the REST API (protocol 2.3, 2.4). Unknown request fields are tolerated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    code: int = Field(description="HTTP status")
    message: str
    error_code: str | None = None


class AutoResume(_Body):
    """Whether traffic revives a paused sandbox."""

    enabled: bool = False


class Egress(_Body):
    """Traffic out (protocol 2.8). Allowed wins over denied; what is neither is open."""

    allow_out: list[str] | None = Field(
        default=None, alias="allowOut", description="IPv4 addresses and CIDRs"
    )
    deny_out: list[str] | None = Field(
        default=None, alias="denyOut", description="addresses and CIDRs"
    )
    dns_servers: list[str] | None = Field(
        default=None, alias="dnsServers", description="IPv4 addresses; none: no DNS"
    )
    egress_proxy: dict[str, JsonValue] | None = Field(default=None, alias="egressProxy")
    rules: dict[str, JsonValue] | None = None


class Network(Egress):
    """Traffic in and out (protocol 2.8)."""

    allow_public_traffic: bool | None = Field(default=None, alias="allowPublicTraffic")
    mask_request_host: str | None = Field(
        default=None,
        alias="maskRequestHost",
        description="host[:port] that servers see; ${PORT} is the port asked for",
    )
    https_ports: list[int] | None = Field(
        default=None, alias="httpsPorts", description="ports whose servers speak TLS"
    )


class NetworkUpdate(Egress):
    """`PUT …/network`: what is not given is cleared."""

    allow_internet_access: bool | None = Field(
        default=None, description="false: the same as denyOut 0.0.0.0/0"
    )


StringMap = dict[str, str]


class NewSandboxV2(_Body):
    """`POST /v2/sandboxes`."""

    template_id: Annotated[str, Field(alias="templateID", min_length=1, max_length=256)]
    timeout: int | None = Field(default=None, description="seconds; default 300")
    metadata: StringMap | None = None
    env_vars: StringMap | None = Field(default=None, alias="envVars")
    auto_pause: bool | None = Field(default=None, alias="autoPause")
    auto_pause_memory: bool | None = Field(default=None, alias="autoPauseMemory")
    auto_resume: AutoResume | None = Field(default=None, alias="autoResume")
    allow_internet_access: bool | None = None
    network: Network | None = None
    mcp: dict[str, JsonValue] | None = None
    iam: dict[str, JsonValue] | None = None
    volume_mounts: list[dict[str, JsonValue]] | None = Field(default=None, alias="volumeMounts")


class NewSandbox(NewSandboxV2):
    """`POST /sandboxes`, of SDKs up to 2.45."""

    timeout: int | None = Field(default=None, description="seconds; default 15")
    secure: bool | None = Field(default=None, description="default false: envd asks for no token")


class ConnectRequest(_Body):
    """`POST …/connect`."""

    timeout: int | None = Field(default=None, description="seconds; never shortens")
    memory: bool | None = Field(default=None, description="only matters to a paused sandbox")


class PauseRequest(_Body):
    """`POST …/pause`."""

    memory: bool | None = Field(default=None, description="false: only its files are kept")
    require_healthy_guest: bool | None = Field(
        default=None,
        alias="requireHealthyGuest",
        description="refuse with 503 when envd does not answer",
    )


class ResumeRequest(_Body):
    """`POST …/resume`, of old SDKs."""

    timeout: int | None = Field(default=None, description="seconds; default 15")
    auto_pause: bool | None = Field(default=None, alias="autoPause")


class SnapshotRequest(_Body):
    """`POST …/snapshots`."""

    name: str | None = Field(default=None, description="[namespace/]name[:tag]", max_length=512)
    memory: bool | None = Field(default=None, description="false: only its files are kept")


class SnapshotInfo(BaseModel):
    """A snapshot."""

    snapshot_id: str = Field(
        serialization_alias="snapshotID", description="to be given as templateID"
    )
    names: list[str]


class ForkRequest(_Body):
    """`POST …/fork`."""

    timeout: int | None = Field(default=None, description="seconds; default 15")
    count: int | None = Field(default=None, description="1 to 100; default 1")


class TimeoutRequest(_Body):
    """`POST …/timeout`."""

    timeout: int = Field(description="seconds from now; negative is 0")


class RefreshRequest(_Body):
    """`POST …/refreshes`."""

    duration: int | None = Field(default=None, description="seconds from now; never shortens")


class SandboxAnswer(BaseModel):
    """Answer of create and connect."""

    template_id: str = Field(serialization_alias="templateID")
    sandbox_id: str = Field(serialization_alias="sandboxID")
    client_id: str = Field(serialization_alias="clientID")
    envd_version: str = Field(serialization_alias="envdVersion")
    alias: str | None = None
    envd_access_token: str | None = Field(default=None, serialization_alias="envdAccessToken")
    traffic_access_token: str | None = Field(default=None, serialization_alias="trafficAccessToken")
    domain: str | None = None


class ListedSandbox(BaseModel):
    """One sandbox of a list."""

    template_id: str = Field(serialization_alias="templateID")
    sandbox_id: str = Field(serialization_alias="sandboxID")
    client_id: str = Field(serialization_alias="clientID")
    started_at: datetime = Field(serialization_alias="startedAt")
    end_at: datetime = Field(serialization_alias="endAt")
    cpu_count: int = Field(serialization_alias="cpuCount")
    memory_mb: int = Field(serialization_alias="memoryMB", description="MiB")
    disk_size_mb: int = Field(serialization_alias="diskSizeMB", description="MiB")
    state: Literal["running", "paused"]
    envd_version: str = Field(serialization_alias="envdVersion")
    alias: str | None = None
    metadata: StringMap | None = None
    unreachable_since: datetime | None = Field(
        default=None,
        serialization_alias="unreachableSince",
        description="nothing was heard of its host since then: it may run, until endAt",
    )


class Lifecycle(BaseModel):
    """What happens at the deadline, and at traffic afterwards."""

    auto_resume: bool = Field(serialization_alias="autoResume")
    on_timeout: Literal["kill", "pause"] = Field(serialization_alias="onTimeout")


class NetworkAnswer(BaseModel):
    """The network object as created, or as changed since."""

    allow_public_traffic: bool = Field(serialization_alias="allowPublicTraffic")
    allow_out: list[str] | None = Field(default=None, serialization_alias="allowOut")
    deny_out: list[str] | None = Field(default=None, serialization_alias="denyOut")
    dns_servers: list[str] | None = Field(default=None, serialization_alias="dnsServers")
    mask_request_host: str | None = Field(default=None, serialization_alias="maskRequestHost")
    https_ports: list[int] | None = Field(default=None, serialization_alias="httpsPorts")


PauseMode = Literal["full", "filesystem"]


class SandboxDetail(ListedSandbox):
    """`GET /sandboxes/{id}`."""

    envd_access_token: str | None = Field(default=None, serialization_alias="envdAccessToken")
    domain: str | None = None
    allow_internet_access: bool | None = Field(
        default=None, serialization_alias="allowInternetAccess"
    )
    network: NetworkAnswer
    lifecycle: Lifecycle
    pause_mode: PauseMode | None = Field(
        default=None, serialization_alias="pauseMode", description="of a paused sandbox"
    )
    notice: str | None = Field(
        default=None, description="what its host said of a start that went otherwise than asked for"
    )


class SandboxForkResult(BaseModel):
    """One child of a fork, or why there is none."""

    sandbox: SandboxAnswer | None = None
    error: ErrorBody | None = None


class SandboxMetric(BaseModel):
    """What a sandbox used at one moment; sizes in bytes."""

    timestamp: datetime
    timestamp_unix: int = Field(serialization_alias="timestampUnix", description="seconds")
    cpu_count: int = Field(serialization_alias="cpuCount")
    cpu_used_pct: float = Field(
        serialization_alias="cpuUsedPct",
        description="of all processors together, since the sample before: 0 to 100",
    )
    mem_used: int = Field(serialization_alias="memUsed")
    mem_total: int = Field(serialization_alias="memTotal")
    mem_cache: int = Field(serialization_alias="memCache")
    disk_used: int = Field(serialization_alias="diskUsed")
    disk_total: int = Field(serialization_alias="diskTotal")


class SandboxesWithMetrics(BaseModel):
    """`GET /sandboxes/metrics`: the newest sample of each."""

    sandboxes: dict[str, SandboxMetric]


class SandboxLog(BaseModel):
    """One log entry for people's terminals."""

    timestamp: datetime
    line: str = Field(description="a JSON object with level, logger, message and the fields")


LogLevel = Literal["debug", "info", "warn", "error"]


class SandboxLogEntry(BaseModel):
    """One log entry."""

    timestamp: datetime
    level: LogLevel
    message: str
    fields: StringMap


class SandboxLogs(BaseModel):
    """`GET /sandboxes/{id}/logs`: the same entries in both forms."""

    logs: list[SandboxLog]
    log_entries: list[SandboxLogEntry] = Field(serialization_alias="logEntries")


class SandboxLogsV2(BaseModel):
    """`GET /v2/sandboxes/{id}/logs`."""

    logs: list[SandboxLogEntry]


class SandboxEvent(BaseModel):
    """One line of the event log, in E2B's form."""

    id: str
    version: Literal["v2"]
    type: str = Field(description="`sandbox.lifecycle.` and what happened")
    timestamp: datetime
    event_data: dict[str, JsonValue] = Field(
        serialization_alias="eventData",
        description="event (our name of it), actor (who), reason (why), and what belongs to it",
    )
    sandbox_id: str = Field(serialization_alias="sandboxId")
    sandbox_execution_id: str = Field(serialization_alias="sandboxExecutionId")
    sandbox_template_id: str = Field(serialization_alias="sandboxTemplateId")
    sandbox_build_id: str = Field(serialization_alias="sandboxBuildId")
    sandbox_team_id: str = Field(serialization_alias="sandboxTeamId")
