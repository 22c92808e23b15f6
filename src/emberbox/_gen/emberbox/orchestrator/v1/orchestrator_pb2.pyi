import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_KILLED: _ClassVar[Outcome]
    OUTCOME_EXPIRED: _ClassVar[Outcome]
    OUTCOME_CRASHED: _ClassVar[Outcome]
    OUTCOME_PAUSED: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_KILLED: Outcome
OUTCOME_EXPIRED: Outcome
OUTCOME_CRASHED: Outcome
OUTCOME_PAUSED: Outcome

class SandboxConfig(_message.Message):
    __slots__ = ("template_id", "build_id", "sandbox_id", "env_vars", "metadata", "envd_access_token", "execution_id", "allow_internet_access", "snapshot", "auto_pause", "auto_pause_filesystem_only", "queue_group", "traffic_access_token")
    class EnvVarsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    ENV_VARS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ENVD_ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_INTERNET_ACCESS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    AUTO_PAUSE_FIELD_NUMBER: _ClassVar[int]
    AUTO_PAUSE_FILESYSTEM_ONLY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_GROUP_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    template_id: str
    build_id: str
    sandbox_id: str
    env_vars: _containers.ScalarMap[str, str]
    metadata: _containers.ScalarMap[str, str]
    envd_access_token: str
    execution_id: str
    allow_internet_access: bool
    snapshot: bool
    auto_pause: bool
    auto_pause_filesystem_only: bool
    queue_group: str
    traffic_access_token: str
    def __init__(self, template_id: _Optional[str] = ..., build_id: _Optional[str] = ..., sandbox_id: _Optional[str] = ..., env_vars: _Optional[_Mapping[str, str]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., envd_access_token: _Optional[str] = ..., execution_id: _Optional[str] = ..., allow_internet_access: _Optional[bool] = ..., snapshot: _Optional[bool] = ..., auto_pause: _Optional[bool] = ..., auto_pause_filesystem_only: _Optional[bool] = ..., queue_group: _Optional[str] = ..., traffic_access_token: _Optional[str] = ...) -> None: ...

class SandboxCreateRequest(_message.Message):
    __slots__ = ("sandbox", "end_time", "filesystem_boot")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_BOOT_FIELD_NUMBER: _ClassVar[int]
    sandbox: SandboxConfig
    end_time: _timestamp_pb2.Timestamp
    filesystem_boot: bool
    def __init__(self, sandbox: _Optional[_Union[SandboxConfig, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., filesystem_boot: _Optional[bool] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("name", "milliseconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    milliseconds: float
    def __init__(self, name: _Optional[str] = ..., milliseconds: _Optional[float] = ...) -> None: ...

class SandboxCreateResponse(_message.Message):
    __slots__ = ("sandbox", "steps", "notice")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    sandbox: RunningSandbox
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    notice: str
    def __init__(self, sandbox: _Optional[_Union[RunningSandbox, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., notice: _Optional[str] = ...) -> None: ...

class RunningSandbox(_message.Message):
    __slots__ = ("sandbox_id", "execution_id", "template_id", "build_id", "state", "vcpu", "ram_mb", "disk_mb", "envd_version", "start_time", "end_time", "metadata", "way", "steps")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VCPU_FIELD_NUMBER: _ClassVar[int]
    RAM_MB_FIELD_NUMBER: _ClassVar[int]
    DISK_MB_FIELD_NUMBER: _ClassVar[int]
    ENVD_VERSION_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    WAY_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    execution_id: str
    template_id: str
    build_id: str
    state: str
    vcpu: int
    ram_mb: int
    disk_mb: int
    envd_version: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    metadata: _containers.ScalarMap[str, str]
    way: str
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    def __init__(self, sandbox_id: _Optional[str] = ..., execution_id: _Optional[str] = ..., template_id: _Optional[str] = ..., build_id: _Optional[str] = ..., state: _Optional[str] = ..., vcpu: _Optional[int] = ..., ram_mb: _Optional[int] = ..., disk_mb: _Optional[int] = ..., envd_version: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., way: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ...) -> None: ...

class SandboxGetRequest(_message.Message):
    __slots__ = ("sandbox_id",)
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    def __init__(self, sandbox_id: _Optional[str] = ...) -> None: ...

class SandboxGetResponse(_message.Message):
    __slots__ = ("sandbox", "story")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    STORY_FIELD_NUMBER: _ClassVar[int]
    sandbox: RunningSandbox
    story: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sandbox: _Optional[_Union[RunningSandbox, _Mapping]] = ..., story: _Optional[_Iterable[str]] = ...) -> None: ...

class SandboxListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SandboxListResponse(_message.Message):
    __slots__ = ("sandboxes",)
    SANDBOXES_FIELD_NUMBER: _ClassVar[int]
    sandboxes: _containers.RepeatedCompositeFieldContainer[RunningSandbox]
    def __init__(self, sandboxes: _Optional[_Iterable[_Union[RunningSandbox, _Mapping]]] = ...) -> None: ...

class SandboxUpdateRequest(_message.Message):
    __slots__ = ("sandbox_id", "end_time", "execution_id")
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    end_time: _timestamp_pb2.Timestamp
    execution_id: str
    def __init__(self, sandbox_id: _Optional[str] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., execution_id: _Optional[str] = ...) -> None: ...

class SandboxUpdateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SandboxDeleteRequest(_message.Message):
    __slots__ = ("sandbox_id", "reason")
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    reason: str
    def __init__(self, sandbox_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SandboxDeleteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SandboxPauseRequest(_message.Message):
    __slots__ = ("sandbox_id", "execution_id", "filesystem_only", "require_healthy_guest")
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_ONLY_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_HEALTHY_GUEST_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    execution_id: str
    filesystem_only: bool
    require_healthy_guest: bool
    def __init__(self, sandbox_id: _Optional[str] = ..., execution_id: _Optional[str] = ..., filesystem_only: _Optional[bool] = ..., require_healthy_guest: _Optional[bool] = ...) -> None: ...

class SandboxPauseResponse(_message.Message):
    __slots__ = ("sandbox",)
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    sandbox: PausedSandbox
    def __init__(self, sandbox: _Optional[_Union[PausedSandbox, _Mapping]] = ...) -> None: ...

class PausedSandbox(_message.Message):
    __slots__ = ("sandbox_id", "execution_id", "template_id", "build_id", "vcpu", "ram_mb", "disk_mb", "envd_version", "metadata", "paused_at", "memory", "memory_bytes", "disk_bytes")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    VCPU_FIELD_NUMBER: _ClassVar[int]
    RAM_MB_FIELD_NUMBER: _ClassVar[int]
    DISK_MB_FIELD_NUMBER: _ClassVar[int]
    ENVD_VERSION_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PAUSED_AT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    execution_id: str
    template_id: str
    build_id: str
    vcpu: int
    ram_mb: int
    disk_mb: int
    envd_version: str
    metadata: _containers.ScalarMap[str, str]
    paused_at: _timestamp_pb2.Timestamp
    memory: bool
    memory_bytes: int
    disk_bytes: int
    def __init__(self, sandbox_id: _Optional[str] = ..., execution_id: _Optional[str] = ..., template_id: _Optional[str] = ..., build_id: _Optional[str] = ..., vcpu: _Optional[int] = ..., ram_mb: _Optional[int] = ..., disk_mb: _Optional[int] = ..., envd_version: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., paused_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., memory: _Optional[bool] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class ListPausedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPausedResponse(_message.Message):
    __slots__ = ("sandboxes",)
    SANDBOXES_FIELD_NUMBER: _ClassVar[int]
    sandboxes: _containers.RepeatedCompositeFieldContainer[PausedSandbox]
    def __init__(self, sandboxes: _Optional[_Iterable[_Union[PausedSandbox, _Mapping]]] = ...) -> None: ...

class SandboxCheckpointRequest(_message.Message):
    __slots__ = ("sandbox_id", "execution_id", "template_id", "build_id", "filesystem_only")
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_ONLY_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    execution_id: str
    template_id: str
    build_id: str
    filesystem_only: bool
    def __init__(self, sandbox_id: _Optional[str] = ..., execution_id: _Optional[str] = ..., template_id: _Optional[str] = ..., build_id: _Optional[str] = ..., filesystem_only: _Optional[bool] = ...) -> None: ...

class SandboxCheckpointResponse(_message.Message):
    __slots__ = ("template", "memory_bytes", "disk_bytes")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    template: Template
    memory_bytes: int
    disk_bytes: int
    def __init__(self, template: _Optional[_Union[Template, _Mapping]] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class SandboxEvent(_message.Message):
    __slots__ = ("number", "sandbox_id", "execution_id", "outcome", "reason", "at")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    number: int
    sandbox_id: str
    execution_id: str
    outcome: Outcome
    reason: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., sandbox_id: _Optional[str] = ..., execution_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AcknowledgeEventsRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class AcknowledgeEventsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SandboxMetric(_message.Message):
    __slots__ = ("at", "cpu_count", "cpu_used_percent", "mem_used", "mem_total", "mem_cache", "disk_used", "disk_total")
    AT_FIELD_NUMBER: _ClassVar[int]
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    CPU_USED_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEM_USED_FIELD_NUMBER: _ClassVar[int]
    MEM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEM_CACHE_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    cpu_count: int
    cpu_used_percent: float
    mem_used: int
    mem_total: int
    mem_cache: int
    disk_used: int
    disk_total: int
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cpu_count: _Optional[int] = ..., cpu_used_percent: _Optional[float] = ..., mem_used: _Optional[int] = ..., mem_total: _Optional[int] = ..., mem_cache: _Optional[int] = ..., disk_used: _Optional[int] = ..., disk_total: _Optional[int] = ...) -> None: ...

class SandboxMetricsRequest(_message.Message):
    __slots__ = ("sandbox_id", "start", "end")
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    start: int
    end: int
    def __init__(self, sandbox_id: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class SandboxMetricsResponse(_message.Message):
    __slots__ = ("samples",)
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[SandboxMetric]
    def __init__(self, samples: _Optional[_Iterable[_Union[SandboxMetric, _Mapping]]] = ...) -> None: ...

class SandboxLatestMetricsRequest(_message.Message):
    __slots__ = ("sandbox_ids",)
    SANDBOX_IDS_FIELD_NUMBER: _ClassVar[int]
    sandbox_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sandbox_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class SandboxLatestMetricsResponse(_message.Message):
    __slots__ = ("samples",)
    class SamplesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SandboxMetric
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SandboxMetric, _Mapping]] = ...) -> None: ...
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.MessageMap[str, SandboxMetric]
    def __init__(self, samples: _Optional[_Mapping[str, SandboxMetric]] = ...) -> None: ...

class SandboxLogsRequest(_message.Message):
    __slots__ = ("sandbox_id", "start_ms", "end_ms", "limit", "newest_first", "level", "search")
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    start_ms: int
    end_ms: int
    limit: int
    newest_first: bool
    level: str
    search: str
    def __init__(self, sandbox_id: _Optional[str] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., limit: _Optional[int] = ..., newest_first: _Optional[bool] = ..., level: _Optional[str] = ..., search: _Optional[str] = ...) -> None: ...

class SandboxLogsResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[LogEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[LogEntry, _Mapping]]] = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("at", "level", "logger", "message", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOGGER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    level: str
    logger: str
    message: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., level: _Optional[str] = ..., logger: _Optional[str] = ..., message: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ServiceInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServiceInfoResponse(_message.Message):
    __slots__ = ("node_id", "version", "driver", "accelerator", "sandboxes_running", "cpu_count", "memory_total_mb", "memory_available_mb", "disk_available_mb", "ready", "status", "pool_ready", "pool_making", "pool_wanted")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    SANDBOXES_RUNNING_FIELD_NUMBER: _ClassVar[int]
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_MB_FIELD_NUMBER: _ClassVar[int]
    DISK_AVAILABLE_MB_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    POOL_READY_FIELD_NUMBER: _ClassVar[int]
    POOL_MAKING_FIELD_NUMBER: _ClassVar[int]
    POOL_WANTED_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    version: str
    driver: str
    accelerator: str
    sandboxes_running: int
    cpu_count: int
    memory_total_mb: int
    memory_available_mb: int
    disk_available_mb: int
    ready: bool
    status: str
    pool_ready: int
    pool_making: int
    pool_wanted: int
    def __init__(self, node_id: _Optional[str] = ..., version: _Optional[str] = ..., driver: _Optional[str] = ..., accelerator: _Optional[str] = ..., sandboxes_running: _Optional[int] = ..., cpu_count: _Optional[int] = ..., memory_total_mb: _Optional[int] = ..., memory_available_mb: _Optional[int] = ..., disk_available_mb: _Optional[int] = ..., ready: _Optional[bool] = ..., status: _Optional[str] = ..., pool_ready: _Optional[int] = ..., pool_making: _Optional[int] = ..., pool_wanted: _Optional[int] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("keep_sandboxes",)
    KEEP_SANDBOXES_FIELD_NUMBER: _ClassVar[int]
    keep_sandboxes: bool
    def __init__(self, keep_sandboxes: _Optional[bool] = ...) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ("sandboxes_ended",)
    SANDBOXES_ENDED_FIELD_NUMBER: _ClassVar[int]
    sandboxes_ended: int
    def __init__(self, sandboxes_ended: _Optional[int] = ...) -> None: ...

class TemplateDeleteRequest(_message.Message):
    __slots__ = ("template_id", "build_id")
    TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    template_id: str
    build_id: str
    def __init__(self, template_id: _Optional[str] = ..., build_id: _Optional[str] = ...) -> None: ...

class TemplateDeleteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TemplateListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TemplateListResponse(_message.Message):
    __slots__ = ("templates",)
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    templates: _containers.RepeatedCompositeFieldContainer[Template]
    def __init__(self, templates: _Optional[_Iterable[_Union[Template, _Mapping]]] = ...) -> None: ...

class Template(_message.Message):
    __slots__ = ("template_id", "build_id", "names", "vcpu", "ram_mb", "disk_mb", "envd_version")
    TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VCPU_FIELD_NUMBER: _ClassVar[int]
    RAM_MB_FIELD_NUMBER: _ClassVar[int]
    DISK_MB_FIELD_NUMBER: _ClassVar[int]
    ENVD_VERSION_FIELD_NUMBER: _ClassVar[int]
    template_id: str
    build_id: str
    names: _containers.RepeatedScalarFieldContainer[str]
    vcpu: int
    ram_mb: int
    disk_mb: int
    envd_version: str
    def __init__(self, template_id: _Optional[str] = ..., build_id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., vcpu: _Optional[int] = ..., ram_mb: _Optional[int] = ..., disk_mb: _Optional[int] = ..., envd_version: _Optional[str] = ...) -> None: ...
