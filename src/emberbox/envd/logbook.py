"""What envd itself did lately, kept for the host to fetch.

Users' data stays out of it: no output, no file contents, no environment, no tokens. Of a command
line the beginning is kept.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox._gen.envd.process.process_pb import ProcessEvent
    from emberbox.envd.spawn import Plan

_ENTRIES = 256
_ANSWER_BYTES = 40 * 1024
"""Of all entries in one answer; the host refuses answers above 64 KiB."""
_LENGTHS = {"cmd": 500, "cwd": 200, "tag": 100, "user": 64, "status": 100}
_MESSAGE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `number` counts from 1 within a stream, `at` is unix seconds."""

    number: int
    at: float
    level: str
    logger: str
    message: str
    fields: Mapping[str, str]

    def encoded(self) -> bytes:
        """As JSON: an array, since every entry has the same six parts."""
        parts = [self.number, self.at, self.level, self.logger, self.message, self.fields]
        return json.dumps(parts, ensure_ascii=False).encode("utf-8", "replace")


class Logbook:
    """The last entries of one stream. A new stream begins with each run of the sandbox."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_ENTRIES)
        self.restart()

    def restart(self) -> None:
        """Forget everything: what a template did before its snapshot is no clone's story."""
        self.stream = os.urandom(4).hex()
        self._numbers = itertools.count(1)
        self._entries.clear()

    def add(self, level: str, logger: str, message: str, **fields: str) -> None:
        """From any thread."""
        entry = Entry(
            next(self._numbers),
            round(time.time(), 6),
            level,
            logger,
            message[:_MESSAGE_LENGTH],
            {name: text[: _LENGTHS.get(name, 64)] for name, text in fields.items() if text},
        )
        self._entries.append(entry)

    def started(self, pid: int, plan: Plan, tag: str | None) -> None:
        """A process was started."""
        self.add(
            "info",
            "process",
            f"process {pid} started",
            pid=str(pid),
            # Joined no further than is kept: arguments may be megabytes.
            cmd=" ".join(text[: _LENGTHS["cmd"]] for text in plan.argv[:20]),
            user=plan.user.name,
            cwd=plan.cwd,
            tag=tag or "",
        )

    def ended(self, pid: int, end: ProcessEvent | None) -> None:
        """A process ended, as its clients were told."""
        status = getattr(end.event.value, "status", "") if end and end.event else ""
        self.add("info", "process", f"process {pid} ended: {status}", pid=str(pid), status=status)

    def after(self, stream: str, number: int) -> tuple[list[bytes], bool]:
        """Encoded entries with a higher number, oldest first, and whether more are waiting.

        All that are kept when `stream` is not the present one.
        """
        known = number if stream == self.stream else 0
        pieces: list[bytes] = []
        size = 0
        for entry in list(self._entries):
            if entry.number > known:
                piece = entry.encoded()
                size += len(piece) + 1
                if size > _ANSWER_BYTES:
                    return pieces, True
                pieces.append(piece)
        return pieces, False


class LogbookHandler(logging.Handler):
    """Copies envd's own warnings and errors into the logbook."""

    def __init__(self, logbook: Logbook) -> None:
        super().__init__(logging.WARNING)
        self._logbook = logbook

    def emit(self, record: logging.LogRecord) -> None:
        """Without the traceback, which may show users' data."""
        level = "error" if record.levelno >= logging.ERROR else "warn"
        self._logbook.add(level, "envd", record.getMessage())
