"""The daemon's process service, as `sandbox.commands` and `sandbox.pty` use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.sdk.command_models import CommandOutput
from emberbox.sdk.errors import NotFoundException
from emberbox.sdk.process_messages import (
    input_message,
    pty_size,
    selector,
    started_pid,
)

from .command_handle import AsyncCommandHandle
from .flavour import opening_limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from emberbox.sdk.command_models import PtySize
    from emberbox.sdk.config import Username
    from emberbox.sdk.json_fields import JsonObject
    from emberbox.sdk.process_messages import InputKind

    from .envd import AsyncEnvd
    from .flavour import OutputHandler


@dataclass(frozen=True, kw_only=True)
class Following:
    """How the output of a process is followed; times are in seconds, 0 or None for no limit."""

    timeout: float | None
    request_timeout: float | None
    on_stdout: OutputHandler[str] | None = None
    on_stderr: OutputHandler[str] | None = None
    on_pty: OutputHandler[bytes] | None = None
    retain_output: bool = True


class AsyncProcesses:
    """Calls about processes whose input is of one kind."""

    def __init__(self, envd: AsyncEnvd, kind: InputKind) -> None:
        self._envd = envd
        self.kind = kind

    async def start(
        self, message: Mapping[str, object], user: Username | None, following: Following
    ) -> AsyncCommandHandle[str | None]:
        """Start a process and follow it."""
        return await self._follow("process.Process/Start", message, user, following)

    async def connect(self, pid: int, following: Following) -> AsyncCommandHandle[str | None]:
        """Follow a process that runs. Raises NotFoundException."""
        return await self._follow("process.Process/Connect", selector(pid), None, following)

    async def kill(self, pid: int, request_timeout: float | None) -> bool:
        """Send SIGKILL; False when there is no such process."""
        message = {**selector(pid), "signal": "SIGNAL_SIGKILL"}
        try:
            await self._call("SendSignal", message, request_timeout)
        except NotFoundException:
            return False
        return True

    async def send_input(self, pid: int, data: str | bytes, request_timeout: float | None) -> None:
        """Write to the input; returns when all is written. Raises NotFoundException."""
        await self._call("SendInput", input_message(pid, self.kind, data), request_timeout)

    async def close_stdin(self, pid: int, request_timeout: float | None) -> None:
        """Close standard input. Raises NotFoundException."""
        await self._call("CloseStdin", selector(pid), request_timeout)

    async def resize(self, pid: int, size: PtySize, request_timeout: float | None) -> None:
        """Change the size of the terminal. Raises NotFoundException."""
        await self._call("Update", {**selector(pid), **pty_size(size)}, request_timeout)

    async def stream_input(
        self, messages: AsyncIterator[Mapping[str, object]], timeout: float | None
    ) -> None:
        """Send an input stream; returns when all is written. Raises NotFoundException."""
        await self._envd.send_stream("process.Process/StreamInput", messages, timeout=timeout)

    async def _call(
        self, method: str, message: Mapping[str, object], request_timeout: float | None
    ) -> None:
        await self._envd.call(f"process.Process/{method}", message, request_timeout=request_timeout)

    async def _follow(
        self,
        procedure: str,
        message: Mapping[str, object],
        user: Username | None,
        following: Following,
    ) -> AsyncCommandHandle[str | None]:
        """The handle of a process, once its stream says that it has started."""
        async with opening_limit(self._envd.request_limit(following.request_timeout)):
            events = await self._envd.stream(
                procedure, message, user=user, timeout=following.timeout
            )
            try:
                first: JsonObject = await anext(events, {})
                pid = started_pid(first)
            except BaseException:
                await events.aclose()
                raise
        return AsyncCommandHandle(
            pid,
            self,
            events,
            CommandOutput[str | None](retain=following.retain_output),
            on_stdout=following.on_stdout,
            on_stderr=following.on_stderr,
            on_pty=following.on_pty,
        )
