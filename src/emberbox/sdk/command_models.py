"""Commands: their description, their events, their result. No I/O."""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, cast

from .errors import InvalidArgumentException, SandboxException
from .json_fields import JsonObject, integer, nested, text, text_map, text_or_none, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
InputKind: TypeAlias = Literal["stdin", "pty"]
"""What input is written to: standard input, or the terminal of a PTY."""

INPUT_STREAM_SECONDS = 60.0
"""Default time limit of an input stream."""
INPUT_PIECE_BYTES = 256 << 10
"""Longest piece of an input stream; the daemon holds each in memory until it is written."""


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


def start_message(
    cmd: str, envs: Mapping[str, str] | None, cwd: str | None, *, stdin: bool
) -> dict[str, object]:
    """`process.StartRequest` for a shell command."""
    process: dict[str, object] = {
        "cmd": "/bin/bash",
        "args": ["-l", "-c", cmd],
        "envs": dict(envs or {}),
    }
    if cwd is not None:
        process["cwd"] = cwd
    return {"process": process, "stdin": stdin}


def selector(pid: int) -> dict[str, object]:
    """`process.ProcessSelector` in the field that every request has it in."""
    return {"process": {"pid": pid}}


def pty_start_message(
    size: PtySize, envs: Mapping[str, str] | None, cwd: str | None
) -> dict[str, object]:
    """`process.StartRequest` for an interactive login shell in a terminal."""
    environment = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    process: dict[str, object] = {
        "cmd": "/bin/bash",
        "args": ["-i", "-l"],
        "envs": {**environment, **(envs or {})},
    }
    if cwd is not None:
        process["cwd"] = cwd
    return {"process": process, **pty_size(size)}


def pty_size(size: PtySize) -> dict[str, object]:
    """`process.PTY` in the field that requests have it in."""
    return {"pty": {"size": {"cols": size.cols, "rows": size.rows}}}


def input_message(pid: int, kind: InputKind, data: str | bytes) -> dict[str, object]:
    """`process.SendInputRequest`."""
    return {**selector(pid), **_input(kind, _bytes_of(data))}


def input_stream_start(pid: int) -> dict[str, object]:
    """The first message of `process.StreamInput`."""
    return {"start": selector(pid)}


def input_stream_data(kind: InputKind, data: str | bytes) -> Iterator[dict[str, object]]:
    """Messages of `process.StreamInput` that carry the data, none if it is empty.

    Raises InvalidArgumentException when it is neither text nor bytes.
    """
    raw = _bytes_of(data)
    for start in range(0, len(raw), INPUT_PIECE_BYTES):
        yield {"data": _input(kind, raw[start : start + INPUT_PIECE_BYTES])}


def _input(kind: InputKind, raw: bytes) -> dict[str, object]:
    return {"input": {kind: base64.b64encode(raw).decode()}}


def _bytes_of(data: object) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise InvalidArgumentException(f"input must be str or bytes, not {type(data).__name__}")


def started_pid(message: JsonObject) -> int:
    """The pid in the first event. Raises SandboxException when it is another event."""
    start = nested(nested(message, "event") or {}, "start")
    if start is None:
        raise SandboxException(f"the command's stream began with {message!r}, not with its start")
    return integer(start, "pid")


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
