"""`sandbox.commands`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from emberbox.sdk.command_models import (
    CommandOutput,
    CommandResult,
    ProcessInfo,
    selector,
    start_message,
    started_pid,
    stdin_message,
)
from emberbox.sdk.errors import NotFoundException
from emberbox.sdk.json_fields import repeated
from emberbox.sdk.not_yet import NotYet

from .command_handle import AsyncCommandHandle

if TYPE_CHECKING:
    import builtins

    from emberbox.sdk.config import Username
    from emberbox.sdk.json_fields import JsonObject

    from .envd import AsyncEnvd
    from .event_stream import AsyncEventStream
    from .flavour import OutputHandler


class AsyncCommands:
    """Runs commands in the sandbox. `request_timeout` is in seconds, 0 for no limit.

    Every method can raise SandboxNotRunningException when the sandbox is gone,
    SandboxUnreachableException when it does not answer, and AuthenticationException.
    """

    stream_input = NotYet()

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd

    async def list(self, request_timeout: float | None = None) -> builtins.list[ProcessInfo]:
        """The commands that are running."""
        answer = await self._envd.call("process.Process/List", {}, request_timeout=request_timeout)
        return [ProcessInfo.from_json(process) for process in repeated(answer, "processes")]

    async def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """Kill a command with SIGKILL; False when there is no such command."""
        message = {**selector(pid), "signal": "SIGNAL_SIGKILL"}
        try:
            await self._envd.call(
                "process.Process/SendSignal", message, request_timeout=request_timeout
            )
        except NotFoundException:
            return False
        return True

    async def send_stdin(
        self, pid: int, data: str | bytes, request_timeout: float | None = None
    ) -> None:
        """Write to the standard input of a command that was run with `stdin=True`.

        Raises NotFoundException when there is no such command.
        """
        await self._envd.call(
            "process.Process/SendInput",
            stdin_message(pid, data),
            request_timeout=request_timeout,
        )

    async def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """Close the standard input of a command, so that it reads its end.

        Raises NotFoundException when there is no such command.
        """
        await self._envd.call(
            "process.Process/CloseStdin", selector(pid), request_timeout=request_timeout
        )

    @overload
    async def run(
        self,
        cmd: str,
        background: Literal[False] | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        stdin: bool | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: Literal[True] = True,
    ) -> CommandResult: ...

    @overload
    async def run(
        self,
        cmd: str,
        background: Literal[False] | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        stdin: bool | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: Literal[False],
    ) -> CommandResult[None]: ...

    @overload
    async def run(
        self,
        cmd: str,
        background: Literal[True],
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        stdin: bool | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: Literal[True] = True,
    ) -> AsyncCommandHandle: ...

    @overload
    async def run(
        self,
        cmd: str,
        background: Literal[True],
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        stdin: bool | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: Literal[False],
    ) -> AsyncCommandHandle[None]: ...

    async def run(  # noqa: PLR0917 (as in e2b)
        self,
        cmd: str,
        background: bool | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        stdin: bool | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: bool = True,
    ) -> (
        CommandResult
        | CommandResult[None]
        | CommandResult[str | None]
        | AsyncCommandHandle
        | AsyncCommandHandle[None]
        | AsyncCommandHandle[str | None]
    ):
        """Run a shell command (`/bin/bash -l -c`) and wait for its end.

        Args:
            background: return a handle as soon as the command has started.
            user: whom to run it as; the sandbox's default user otherwise.
            on_stdout: called with each piece of output, as is `on_stderr`.
            stdin: give the command a standard input that `send_stdin` writes to.
            timeout: seconds after which the sandbox kills the command; 0 for no limit.
            request_timeout: not used, as in `e2b`: `timeout` limits this call.
            retain_output: False keeps no output in memory; results then have None.

        Raises:
            CommandExitException: it ended with an exit code other than 0 (not in background).
            TimeoutException: it exceeded `timeout`.
            InvalidArgumentException: `cwd` does not exist.
            AuthenticationException: there is no such `user`.
        """
        events = await self._envd.stream(
            "process.Process/Start",
            start_message(cmd, envs, cwd, stdin=bool(stdin)),
            user=user,
            timeout=timeout,
        )
        handle = await self._handle(events, on_stdout, on_stderr, retain_output=retain_output)
        if background:
            return handle
        try:
            return await handle.wait()
        finally:
            await handle.disconnect()

    @overload
    async def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        *,
        retain_output: Literal[True] = True,
    ) -> AsyncCommandHandle: ...

    @overload
    async def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        *,
        retain_output: Literal[False],
    ) -> AsyncCommandHandle[None]: ...

    async def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        *,
        retain_output: bool = True,
    ) -> AsyncCommandHandle | AsyncCommandHandle[None] | AsyncCommandHandle[str | None]:
        """Follow a command that is running; output from before is not repeated.

        Args:
            timeout: seconds to follow it; 0 for no limit. The command is not killed then.
            request_timeout: not used, as in `e2b`: `timeout` limits this call.
            on_stdout: called with each piece of output, as is `on_stderr`.
            retain_output: False keeps no output in memory.

        Raises:
            NotFoundException: there is no such command.
        """
        events = await self._envd.stream("process.Process/Connect", selector(pid), timeout=timeout)
        return await self._handle(events, on_stdout, on_stderr, retain_output=retain_output)

    async def _handle(
        self,
        events: AsyncEventStream,
        on_stdout: OutputHandler[str] | None,
        on_stderr: OutputHandler[str] | None,
        *,
        retain_output: bool,
    ) -> AsyncCommandHandle[str | None]:
        """The handle of the command whose stream this is, once it says that it has started."""
        try:
            first: JsonObject = await anext(events, {})
            pid = started_pid(first)
        except BaseException:
            await events.aclose()
            raise
        output = CommandOutput[str | None](retain=retain_output)
        return AsyncCommandHandle(
            pid, self, events, output, on_stdout=on_stdout, on_stderr=on_stderr
        )
