"""The access log: one JSON object a line, written in batches, kept small.

`time` is in milliseconds since 1970, `us` what the request took in microseconds.

Queries are left out: signatures of URLs are in them. Several processes may append to one file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from time import monotonic, time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.journal import Entry

LIMIT = 64 * 1024 * 1024
"""Bytes in the file before it is renamed to `<name>.1`; one older file is kept."""
_LOOK_EVERY = 1.0
_ESCAPED = re.compile(rb'["\\]')


class AccessLog:
    """Appends to a file (0600: it names users' addresses and sandboxes).

    The file may be renamed at any time, by logrotate for instance: within a second a new one is
    begun. Errors of the disk lose lines, never requests.
    """

    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        """Raises OSError when it cannot be opened."""
        self._path = path
        self._limit = limit
        self._fd = self._open()
        self._look_at = monotonic() + _LOOK_EVERY
        # Entries have the time that only goes forward; lines have that of the clock on the wall.
        self._offset = time() - monotonic()

    def write(self, entries: Iterable[Entry]) -> None:
        """Add a line for each."""
        lines = b"".join([_line(entry, self._offset) for entry in entries])
        with contextlib.suppress(OSError):
            os.write(self._fd, lines)
            now = monotonic()
            if now >= self._look_at:
                self._look_at = now + _LOOK_EVERY
                self._offset = time() - now
                self._look()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _look(self) -> None:
        """Begin a new file when this one is large, or not at its place any more."""
        ours = os.fstat(self._fd)
        if ours.st_size > self._limit:
            # Of several processes one renames: the others find another file in its place.
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self._is_at_its_place(ours):
                self._path.rename(self._path.with_name(f"{self._path.name}.1"))
        if not self._is_at_its_place(ours):
            os.close(self._fd)
            self._fd = self._open()

    def _is_at_its_place(self, ours: os.stat_result) -> bool:
        try:
            return os.path.samestat(self._path.stat(), ours)
        except FileNotFoundError:
            return False


def _line(entry: Entry, offset: float) -> bytes:
    """Formatted as bytes, as most of it is bytes already."""
    request, target = entry.request, entry.target
    method, path = _words(request) if request is not None else (b"", b"")
    sandbox, port = (target.sandbox_id, target.sandbox_port) if target is not None else ("", 0)
    return (
        b'{"time":%d,"client":"%b","connection":%d,"request":%d,"method":"%b","path":"%b",'
        b'"sandbox":"%b","port":%d,"status":%d,"sent":%d,"received":%d,"us":%d%b}\n'
    ) % (
        (entry.ended + offset) * 1e3,
        entry.client.peer.encode(),
        entry.client.number,
        entry.ordinal,
        method,
        path,
        sandbox.encode(),
        port,
        entry.status,
        entry.sent,
        entry.received,
        (entry.ended - entry.begun) * 1e6,
        b',"cut":true' if entry.cut else b"",
    )


def _words(request: RequestHead) -> tuple[bytes, bytes]:
    path = request.target.partition(b"?")[0]
    if b'"' in path or b"\\" in path:
        path = _ESCAPED.sub(rb"\\\g<0>", path)
    return request.method, path
