"""The client SDK: `from emberbox import Sandbox, AsyncSandbox`.

Async code is written by hand in `_async`; `_sync` is generated from it by `scripts/unasync.py`.
The modules beside them do no I/O and serve both.
"""

from __future__ import annotations

from ._async.command_handle import AsyncCommandHandle
from ._async.input_streams import AsyncCommandInputHandle
from ._async.paginator import AsyncSandboxPaginator
from ._async.sandbox import AsyncSandbox
from ._async.watching import AsyncWatchHandle
from ._sync.command_handle import CommandHandle
from ._sync.paginator import SandboxPaginator
from ._sync.sandbox import Sandbox
from ._sync.watching import WatchHandle
from .command_models import (
    CommandExitException,
    CommandResult,
    ProcessInfo,
    PtyOutput,
    PtySize,
    Stderr,
    Stdout,
)
from .config import ApiParams, ConnectionConfig, Username
from .errors import (
    ApiUnreachableException,
    AuthenticationException,
    FileNotFoundException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    NotFoundException,
    NotSupportedYetException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)
from .file_models import (
    AsyncWriteData,
    AsyncWriteEntry,
    EntryInfo,
    FilesystemEvent,
    FilesystemEventType,
    FileType,
    WriteData,
    WriteEntry,
    WriteInfo,
)
from .sandbox_models import (
    SandboxInfo,
    SandboxInfoLifecycle,
    SandboxListOrder,
    SandboxOnResume,
    SandboxQuery,
    SandboxState,
)

__all__ = [
    "ApiParams",
    "ApiUnreachableException",
    "AsyncCommandHandle",
    "AsyncCommandInputHandle",
    "AsyncSandbox",
    "AsyncSandboxPaginator",
    "AsyncWatchHandle",
    "AsyncWriteData",
    "AsyncWriteEntry",
    "AuthenticationException",
    "CommandExitException",
    "CommandHandle",
    "CommandResult",
    "ConnectionConfig",
    "EntryInfo",
    "FileNotFoundException",
    "FileType",
    "FilesystemEvent",
    "FilesystemEventType",
    "InvalidArgumentException",
    "NotEnoughSpaceException",
    "NotFoundException",
    "NotSupportedYetException",
    "ProcessInfo",
    "PtyOutput",
    "PtySize",
    "RateLimitException",
    "Sandbox",
    "SandboxException",
    "SandboxInfo",
    "SandboxInfoLifecycle",
    "SandboxListOrder",
    "SandboxNotFoundException",
    "SandboxNotRunningException",
    "SandboxOnResume",
    "SandboxPaginator",
    "SandboxQuery",
    "SandboxState",
    "SandboxUnreachableException",
    "ServiceBusyException",
    "Stderr",
    "Stdout",
    "TimeoutException",
    "Username",
    "WatchHandle",
    "WriteData",
    "WriteEntry",
    "WriteInfo",
]
