"""Following a command as it runs: a task reads the events as they come and calls the handlers.

The synchronous flavour reads them when the caller waits or iterates.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from emberbox.sdk.command_models import CommandOutput, CommandResult, OutputT

from .flavour import call_handler

if TYPE_CHECKING:
    from emberbox.sdk.command_models import Output
    from emberbox.sdk.json_fields import JsonObject

    from .event_stream import AsyncEventStream
    from .flavour import OutputHandler

T = TypeVar("T")


class Consumer(Generic[OutputT]):
    """The events of one command, read by a task from the start on."""

    def __init__(
        self,
        events: AsyncEventStream,
        output: CommandOutput[OutputT],
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
        on_pty: OutputHandler[bytes] | None = None,
    ) -> None:
        self._events = events
        self._output = output
        self._on_stdout = on_stdout
        self._on_stderr = on_stderr
        self._on_pty = on_pty
        self._failure: Exception | None = None
        self._task = asyncio.create_task(self._consume())

    async def wait(self) -> CommandResult[OutputT]:
        """Wait until the command ends. Cancelling the wait leaves the command followed.

        Raises:
            CommandExitException: it ended with an exit code other than 0.
            TimeoutException: it exceeded its timeout, or its sandbox is gone.
        """
        await asyncio.wait([self._task])
        if self._failure is not None:
            raise self._failure
        return self._output.outcome()

    async def disconnect(self) -> None:
        """Stop following the command; it runs on, and `commands.connect` follows it again."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._events.aclose()  # a task that is cancelled before it began does not do it

    async def _consume(self) -> None:
        try:
            async for event in self._events:
                await self._take(event)
            await self._emit(self._output.flush())
        except Exception as error:  # noqa: BLE001 (raised by `wait`, whatever it is)
            self._failure = error
            self._output.flush()
        finally:
            await self._events.aclose()

    async def _take(self, event: JsonObject) -> None:
        await self._emit(self._output.feed(event))

    async def _emit(self, pieces: list[Output]) -> None:
        for stdout, stderr, pty in pieces:
            await _give(self._on_stdout, stdout)
            await _give(self._on_stderr, stderr)
            await _give(self._on_pty, pty)


async def _give(handler: OutputHandler[T] | None, piece: T | None) -> None:
    if handler is not None and piece is not None:
        await call_handler(handler, piece)
