"""Commands and terminals: what is told about them, their output, their result. No I/O."""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, cast

from .errors import SandboxException
from .json_fields import JsonObject, integer, nested, text, text_map, text_or_none, texts

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # The default makes a bare `CommandResult` mean `CommandResult[str]` to type checkers.
    OutputT = TypeVar("OutputT", bound=str | None, default=str)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

Stdout = str
Stderr = str
PtyOutput = bytes
Output: TypeAlias = tuple[Stdout | None, Stderr | None, PtyOutput | None]
"""One piece of output; exactly one of the three is not None."""


@dataclass
class CommandResult(Generic[OutputT]):
    """How a command ended. The outputs are None if it was run with `retain_output=False`."""

    stderr: OutputT
    stdout: OutputT
    exit_code: int
    error: str | None
    """What the daemon said about an end that was not plain success."""


@dataclass
class CommandExitException(SandboxException, CommandResult[OutputT]):
    """A command ended with an exit code other than 0."""

    def __str__(self) -> str:
        if self.stderr is None:
            return f"Command exited with code {self.exit_code}"
        return f"Command exited with code {self.exit_code} and error:\n{self.stderr}"


@dataclass
class PtySize:
    """Size of a terminal, in characters."""

    rows: int
    cols: int


@dataclass
class ProcessInfo:
    """A command that runs in the sandbox."""

    pid: int
    tag: str | None
    cmd: str
    args: list[str]
    envs: dict[str, str]
    cwd: str | None

    @classmethod
    def from_json(cls, record: JsonObject) -> ProcessInfo:
        """From `process.ProcessInfo`."""
        config = nested(record, "config") or {}
        return cls(
            pid=integer(record, "pid"),
            tag=text_or_none(record, "tag"),
            cmd=text(config, "cmd"),
            args=texts(config, "args"),
            envs=text_map(config, "envs"),
            cwd=text_or_none(config, "cwd"),
        )


class CommandOutput(Generic[OutputT]):
    """Collects a command's events into output and result.

    Characters may be split between events, so each stream is decoded incrementally.
    """

    def __init__(self, *, retain: bool) -> None:
        self._chunks: dict[str, list[str]] | None = {"stdout": [], "stderr": []} if retain else None
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")(errors="replace")
            for name in ("stdout", "stderr")
        }
        self.result: CommandResult[OutputT] | None = None

    @property
    def stdout(self) -> OutputT:
        """Standard output so far."""
        return self._joined("stdout")

    @property
    def stderr(self) -> OutputT:
        """Standard error so far."""
        return self._joined("stderr")

    def feed(self, message: JsonObject) -> list[Output]:
        """The pieces of output that one event brings."""
        event = nested(message, "event") or {}
        if (data := nested(event, "data")) is not None:
            return self._feed_data(data)
        if (end := nested(event, "end")) is not None:
            return self._end(end)
        return []

    def flush(self) -> list[Output]:
        """What an unfinished character at the end of a stream decodes to."""
        return self._decode("stdout", b"", final=True) + self._decode("stderr", b"", final=True)

    def outcome(self) -> CommandResult[OutputT]:
        """The result. Raises CommandExitException, or SandboxException when there is no end."""
        if self.result is None:
            raise SandboxException("Command ended without an end event")
        if self.result.exit_code != 0:
            raise CommandExitException(
                stdout=self.result.stdout,
                stderr=self.result.stderr,
                exit_code=self.result.exit_code,
                error=self.result.error,
            )
        return self.result

    def _feed_data(self, data: JsonObject) -> list[Output]:
        if (pty := text_or_none(data, "pty")) is not None:
            return [(None, None, base64.b64decode(pty))]
        return [
            piece
            for name in ("stdout", "stderr")
            for piece in self._decode(name, base64.b64decode(text(data, name)), final=False)
        ]

    def _end(self, end: JsonObject) -> list[Output]:
        flushed = self.flush()
        self.result = CommandResult(
            stdout=self.stdout,
            stderr=self.stderr,
            exit_code=integer(end, "exitCode"),
            error=text_or_none(end, "error"),
        )
        return flushed

    def _decode(self, name: str, raw: bytes, *, final: bool) -> list[Output]:
        piece = self._decoders[name].decode(raw, final=final)
        if not piece:
            return []
        if self._chunks is not None:
            self._chunks[name].append(piece)
        return [(piece, None, None) if name == "stdout" else (None, piece, None)]

    def _joined(self, name: str) -> OutputT:
        # OutputT is None exactly when nothing is retained; the caller's overloads say so.
        return cast("OutputT", None if self._chunks is None else "".join(self._chunks[name]))
