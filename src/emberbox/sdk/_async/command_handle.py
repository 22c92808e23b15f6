"""A command at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.sdk.command_models import CommandOutput, OutputT

from .consuming import Consumer

if TYPE_CHECKING:
    from .event_stream import AsyncEventStream
    from .flavour import OutputHandler
    from .processes import AsyncProcesses


class AsyncCommandHandle(Consumer[OutputT]):
    """A command or PTY that was started or connected to.

    Made by `sandbox.commands` and `sandbox.pty`.
    """

    def __init__(
        self,
        pid: int,
        processes: AsyncProcesses,
        events: AsyncEventStream,
        output: CommandOutput[OutputT],
        *,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        on_pty: OutputHandler[bytes] | None = None,
    ) -> None:
        super().__init__(events, output, on_stdout, on_stderr, on_pty)
        self._pid = pid
        self._processes = processes

    @property
    def pid(self) -> int:
        """Process id of the command in the sandbox."""
        return self._pid

    @property
    def stdout(self) -> OutputT:
        """Standard output so far; None with `retain_output=False`."""
        return self._output.stdout

    @property
    def stderr(self) -> OutputT:
        """Standard error so far; None with `retain_output=False`."""
        return self._output.stderr

    @property
    def exit_code(self) -> int | None:
        """Exit code; None until the end of the command was seen."""
        return self._output.result.exit_code if self._output.result else None

    @property
    def error(self) -> str | None:
        """What the daemon said about an end that was not plain success."""
        return self._output.result.error if self._output.result else None

    async def kill(self) -> bool:
        """Kill the command with SIGKILL; False when it had ended already."""
        return await self._processes.kill(self._pid, None)

    async def send_stdin(self, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to the command's standard input; it must have been run with `stdin=True`.

        Input to a PTY is typed into it.
        """
        await self._processes.send_input(self._pid, data, request_timeout)

    async def close_stdin(self, request_timeout: float | None = None) -> None:
        """Close the command's standard input, so that it reads its end.

        Raises InvalidArgumentException for a PTY: its input is ended by sending Ctrl-D.
        """
        await self._processes.close_stdin(self._pid, request_timeout)
