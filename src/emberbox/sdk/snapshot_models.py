"""What pausing, snapshots and forks are asked with, and what they answer. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .error_mapping import refusal
from .errors import InvalidArgumentException, NotFoundException, SandboxException
from .json_fields import JsonObject, integer, nested, required, text, texts
from .sandbox_models import SandboxAccess

SnapshotMode: TypeAlias = Literal["full", "filesystem"]
"""With the memory, or without: then it boots when it is started again."""

MOST_FORKS = 100
"""Children of one fork."""


@dataclass
class SnapshotInfo:
    """A snapshot, from which sandboxes can be made."""

    snapshot_id: str
    names: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, record: JsonObject) -> SnapshotInfo:
        """From `SnapshotInfo`. Raises SandboxException when the id lacks."""
        return cls(required(record, "snapshotID"), texts(record, "names"))


def keeps_memory(
    option: str, mode: SnapshotMode | None, keep_memory: bool | None = None
) -> bool | None:
    """What `mode` says, or the older `keep_memory`; None leaves it to the server.

    `option` is how `mode` is called in errors. Raises InvalidArgumentException.
    """
    if mode is not None and keep_memory is not None:
        raise InvalidArgumentException(f"pass either {option} or keep_memory, not both")
    if mode is None:
        return keep_memory
    if mode not in ("full", "filesystem"):
        raise InvalidArgumentException(f"{option} must be full or filesystem, got {mode!r}")
    return mode == "full"


def pause_body(
    keep_memory: bool | None, mode: SnapshotMode | None, strict: bool
) -> dict[str, object]:
    """Body of `POST /sandboxes/{id}/pause`. Raises InvalidArgumentException."""
    healthy = True if strict else None
    return _given(memory=keeps_memory("mode", mode, keep_memory), requireHealthyGuest=healthy)


def snapshot_body(name: str | None, mode: SnapshotMode | None) -> dict[str, object]:
    """Body of `POST /sandboxes/{id}/snapshots`. Raises InvalidArgumentException."""
    return _given(name=name or None, memory=keeps_memory("mode", mode))


def fork_body(timeout: int | None, count: int | None) -> dict[str, object]:
    """Body of `POST /sandboxes/{id}/fork`. Raises InvalidArgumentException."""
    whole = isinstance(count, int) and not isinstance(count, bool)
    if count is not None and not (whole and 1 <= count <= MOST_FORKS):
        raise InvalidArgumentException(f"count must be an integer between 1 and {MOST_FORKS}")
    return _given(timeout=timeout, count=count)


def snapshot_parameters(
    sandbox_id: str | None, limit: int | None, next_token: str | None, name: str | None
) -> dict[str, str]:
    """Query of `GET /snapshots`."""
    parameters = {
        "sandboxID": sandbox_id,
        "name": name,
        "limit": str(limit) if limit else None,
        "nextToken": next_token,
    }
    return {key: value for key, value in parameters.items() if value}


def fork_result(record: JsonObject) -> SandboxAccess | Exception:
    """One child of a fork, or why there is none."""
    sandbox, error = nested(record, "sandbox"), nested(record, "error")
    if sandbox is not None:
        return SandboxAccess.from_json(sandbox)
    if error is None:
        return SandboxException("the server's answer to fork lacks a sandbox")
    status, message = integer(error, "code"), text(error, "message")
    if status == 404:
        # Of the source the whole request would have said so: something else is missing.
        return NotFoundException(f"404: {message}")
    return refusal(status, message)


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
