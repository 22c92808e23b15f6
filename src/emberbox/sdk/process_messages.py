"""What is asked about processes: the messages of the daemon's process service. No I/O."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Literal, TypeAlias

from .errors import InvalidArgumentException, SandboxException
from .json_fields import JsonObject, integer, nested

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .command_models import PtySize

InputKind: TypeAlias = Literal["stdin", "pty"]
"""What input is written to: standard input, or the terminal of a PTY."""

INPUT_STREAM_SECONDS = 60.0
"""Default time limit of an input stream."""
INPUT_PIECE_BYTES = 256 << 10
"""Longest piece of an input stream; the daemon holds each in memory until it is written."""


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
