"""A file of JSON lines that never grows beyond its bound."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydantic import JsonValue


class Journal:
    """Two files: when the newer one is half the bound, it takes the place of the older one.

    Written without fsync: nothing that it tells of survives the loss of power that fsync guards
    against. A line that a crash has torn is left out when it is read.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._older = path.with_name(f"{path.name}.older")
        self._half = max_bytes // 2

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.path.exists() or self._older.exists()

    def append(self, rows: Iterable[JsonValue]) -> None:
        """Add rows, making the directory if needed. Raises OSError."""
        lines = b"".join(_line(row) for row in rows)
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            os.write(fd, b"\n" + lines if torn else lines)
        finally:
            os.close(fd)
        if size + len(lines) >= self._half:
            self.path.replace(self._older)

    def read(self) -> list[JsonValue]:
        """All rows, oldest first."""
        return [*_rows(self._older), *_rows(self.path)]

    def remove(self) -> None:
        """Forget everything. Raises OSError."""
        self._older.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _line(row: JsonValue) -> bytes:
    # ASCII only: whatever a guest has sent, half a character included, can be written.
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _rows(path: Path) -> list[JsonValue]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows: list[JsonValue] = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
