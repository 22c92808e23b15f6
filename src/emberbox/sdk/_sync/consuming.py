"""Following a command as it runs: the events are read when the caller waits or iterates.

The asynchronous flavour has a task that reads them as they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from emberbox.sdk.command_models import CommandOutput, CommandResult, OutputT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.sdk.command_models import Output

    from .event_stream import EventStream
    from .flavour import OutputHandler

T = TypeVar("T")


class Consumer(Generic[OutputT]):
    """The events of one command, read on demand."""

    def __init__(
        self,
        events: EventStream,
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

    def __iter__(self) -> Iterator[Output]:
        """Yield output as it comes: (stdout, stderr, pty), of which one is not None.

        Raises:
            TimeoutException: the command exceeded its timeout, or its sandbox is gone.
        """
        try:
            for event in self._events:
                yield from self._output.feed(event)
            yield from self._output.flush()
        except Exception as error:
            self._failure = error
            yield from self._output.flush()
            raise

    def wait(
        self,
        on_pty: OutputHandler[bytes] | None = None,
        on_stdout: OutputHandler[str] | None = None,
        on_stderr: OutputHandler[str] | None = None,
    ) -> CommandResult[OutputT]:
        """Wait until the command ends, giving its output to the handlers meanwhile.

        Raises:
            CommandExitException: it ended with an exit code other than 0.
            TimeoutException: it exceeded its timeout, or its sandbox is gone.
        """
        if self._failure is not None:
            raise self._failure
        for stdout, stderr, pty in self:
            _call(on_stdout or self._on_stdout, stdout)
            _call(on_stderr or self._on_stderr, stderr)
            _call(on_pty or self._on_pty, pty)
        return self._output.outcome()

    def disconnect(self) -> None:
        """Stop following the command; it runs on, and `commands.connect` follows it again."""
        self._events.close()


def _call(handler: OutputHandler[T] | None, piece: T | None) -> None:
    if handler is not None and piece is not None:
        handler(piece)
