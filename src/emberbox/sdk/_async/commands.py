"""`sandbox.commands`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from emberbox.sdk.command_models import CommandResult, ProcessInfo
from emberbox.sdk.json_fields import repeated
from emberbox.sdk.process_messages import start_message

from .input_streams import TakesInputStream
from .processes import AsyncProcesses, Following

if TYPE_CHECKING:
    import builtins

    from emberbox.sdk.config import Username

    from .command_handle import AsyncCommandHandle
    from .envd import AsyncEnvd
    from .flavour import OutputHandler


class AsyncCommands(TakesInputStream):
    """Runs commands in the sandbox. `request_timeout` is in seconds, 0 for no limit.

    Every method can raise SandboxNotRunningException when the sandbox is gone,
    SandboxUnreachableException when it does not answer, and AuthenticationException.
    """

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd
        self._processes = AsyncProcesses(envd, "stdin")

    async def list(self, request_timeout: float | None = None) -> builtins.list[ProcessInfo]:
        """The commands and PTYs that are running."""
        answer = await self._envd.call("process.Process/List", {}, request_timeout=request_timeout)
        return [ProcessInfo.from_json(process) for process in repeated(answer, "processes")]

    async def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """Kill a command with SIGKILL; False when there is no such command."""
        return await self._processes.kill(pid, request_timeout)

    async def send_stdin(
        self, pid: int, data: str | bytes, request_timeout: float | None = None
    ) -> None:
        """Write to the standard input of a command that was run with `stdin=True`.

        Raises NotFoundException when there is no such command.
        """
        await self._processes.send_input(pid, data, request_timeout)

    async def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """Close the standard input of a command, so that it reads its end.

        Raises NotFoundException when there is no such command.
        """
        await self._processes.close_stdin(pid, request_timeout)

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
        retain_output: bool,
    ) -> CommandResult[str | None]: ...

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
        retain_output: bool,
    ) -> AsyncCommandHandle[str | None]: ...

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
            request_timeout: longest wait for the start, in seconds, 0 for no limit; only the
                asynchronous flavour has this limit.
            retain_output: False keeps no output in memory; results then have None.

        Raises:
            CommandExitException: it ended with an exit code other than 0 (not in background).
            TimeoutException: it exceeded `timeout`.
            InvalidArgumentException: `cwd` does not exist.
            AuthenticationException: there is no such `user`.
        """
        handle = await self._processes.start(
            start_message(cmd, envs, cwd, stdin=bool(stdin)),
            user,
            Following(
                timeout=timeout,
                request_timeout=request_timeout,
                on_stdout=on_stdout,
                on_stderr=on_stderr,
                retain_output=retain_output,
            ),
        )
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

    @overload
    async def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        *,
        retain_output: bool,
    ) -> AsyncCommandHandle[str | None]: ...

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
            request_timeout: longest wait for the first answer, in seconds, 0 for no limit; only
                the asynchronous flavour has this limit.
            on_stdout: called with each piece of output, as is `on_stderr`.
            retain_output: False keeps no output in memory.

        Raises:
            NotFoundException: there is no such command.
        """
        return await self._processes.connect(
            pid,
            Following(
                timeout=timeout,
                request_timeout=request_timeout,
                on_stdout=on_stdout,
                on_stderr=on_stderr,
                retain_output=retain_output,
            ),
        )
