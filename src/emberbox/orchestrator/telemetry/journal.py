"""A file of JSON lines that never grows beyond its bound."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydantic import JsonValue


_LATEST = 253_402_300_800.0
"""The year 10000, which no form of time that we send has room for."""


class Journal:
    """Two files: when the newer one is half the bound, it takes the place of the older one.

    Written without fsync: nothing that it tells of survives the loss of power that fsync guards
    against. A line that a crash has torn is left out when it is read. One thread may read while
    another writes.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._older = path.with_name(f"{path.name}.older")
        self._half = max_bytes // 2
        self._lock = threading.Lock()

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.path.exists() or self._older.exists()

    def append(self, rows: Iterable[JsonValue]) -> None:
        """Add rows, making the directory if needed. Raises OSError.

        A row that is longer than half the bound is left out.
        """
        lines = [line for line in map(_line, rows) if len(line) <= self._half]
        with self._lock:
            while lines:
                lines = self._fill(lines)

    def _fill(self, lines: list[bytes]) -> list[bytes]:
        """Write what has room in the newer file, which is never full; what is left to write."""
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            data = b"\n" if torn else b""
            count = 0
            while count < len(lines) and size + len(data) + len(lines[count]) <= self._half:
                data += lines[count]
                count += 1
            os.write(fd, data)
        finally:
            os.close(fd)
        if count < len(lines):
            self.path.replace(self._older)
        return lines[count:]

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def read(self) -> list[JsonValue]:
        """All rows, oldest first."""
        with self._lock:
            files = [_bytes(self._older), _bytes(self.path)]
        return [row for data in files for row in _rows(data)]

    def remove(self) -> None:
        """Forget everything. Raises OSError."""
        self._older.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _line(row: JsonValue) -> bytes:
    # ASCII only: whatever a guest has sent, half a character included, can be written.
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _rows(data: bytes) -> list[JsonValue]:
    rows: list[JsonValue] = []
    for line in data.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value that was read is a finite number, no greater than a time can be."""
    return isinstance(value, float | int) and 0 <= value < _LATEST


def is_counter(value: object) -> TypeGuard[int]:
    """Whether a value that was read is a whole number that a counter of ours can have."""
    return isinstance(value, int) and 0 <= value < 1 << 63
