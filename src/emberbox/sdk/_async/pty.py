"""`sandbox.pty`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from emberbox.sdk.process_messages import pty_start_message

from .input_streams import TakesInputStream
from .processes import AsyncProcesses, Following

if TYPE_CHECKING:
    from emberbox.sdk.command_models import PtySize
    from emberbox.sdk.config import Username

    from .command_handle import AsyncCommandHandle
    from .envd import AsyncEnvd
    from .flavour import OutputHandler


class AsyncPty(TakesInputStream):
    """Shells in terminals (pseudo-terminals, PTYs) in the sandbox.

    A terminal has one output, given as bytes as they come. `sandbox.commands.list` lists
    terminals too. Every method can raise SandboxNotRunningException when the sandbox is gone,
    SandboxUnreachableException when it does not answer, and AuthenticationException.
    """

    def __init__(self, envd: AsyncEnvd) -> None:
        self._processes = AsyncProcesses(envd, "pty")

    async def create(  # noqa: PLR0917 (as in e2b)
        self,
        size: PtySize,
        on_data: OutputHandler[bytes],
        user: Username | None = None,
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
    ) -> AsyncCommandHandle:
        """Start an interactive login shell (`/bin/bash -i -l`) in a new terminal.

        Args:
            on_data: called with each piece of output; it may be a coroutine function.
            user: whom to run it as; the sandbox's default user otherwise.
            envs: added to the environment, which has `TERM` and a UTF-8 locale.
            timeout: seconds after which the sandbox kills the shell; 0 for no limit.
            request_timeout: longest wait for the start, in seconds, 0 for no limit; only the
                asynchronous flavour has this limit.

        Raises:
            InvalidArgumentException: `cwd` does not exist, or the size cannot be used.
            AuthenticationException: there is no such `user`.
        """
        following = Following(timeout=timeout, request_timeout=request_timeout, on_pty=on_data)
        handle = await self._processes.start(pty_start_message(size, envs, cwd), user, following)
        return cast("AsyncCommandHandle", handle)

    async def connect(
        self,
        pid: int,
        on_data: OutputHandler[bytes],
        timeout: float | None = 60,
        request_timeout: float | None = None,
    ) -> AsyncCommandHandle:
        """Follow a terminal that is there; output from before is not repeated.

        Args:
            on_data: called with each piece of output; it may be a coroutine function.
            timeout: seconds to follow it; 0 for no limit. The shell is not killed then.
            request_timeout: longest wait for the first answer, in seconds, 0 for no limit; only
                the asynchronous flavour has this limit.

        Raises:
            NotFoundException: there is no such process.
        """
        following = Following(timeout=timeout, request_timeout=request_timeout, on_pty=on_data)
        handle = await self._processes.connect(pid, following)
        return cast("AsyncCommandHandle", handle)

    async def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """Kill the shell with SIGKILL; False when there is no such process."""
        return await self._processes.kill(pid, request_timeout)

    async def send_stdin(self, pid: int, data: bytes, request_timeout: float | None = None) -> None:
        """Type into the terminal. Raises NotFoundException."""
        await self._processes.send_input(pid, data, request_timeout)

    async def resize(self, pid: int, size: PtySize, request_timeout: float | None = None) -> None:
        """Change the size of the terminal; its programs are told (SIGWINCH).

        Raises NotFoundException, and SandboxException when the process has no terminal.
        """
        await self._processes.resize(pid, size, request_timeout)
