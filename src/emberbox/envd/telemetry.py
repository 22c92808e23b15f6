"""GET /telemetry: usage and new log entries for the host, in one request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from emberbox.envd.errors import InvalidArgumentError, PermissionDeniedError
from emberbox.envd.metrics import cpu_ticks, usage

if TYPE_CHECKING:
    from collections.abc import Collection

    from emberbox.envd.asgi import Request
    from emberbox.envd.logbook import Logbook


_BASE_SECONDS = 0.5
"""After the machine was told who it is: a first command may wait for the processor until then."""


class Telemetry:
    """Answers the host alone: `peers` are the addresses it asks from.

    CPU time is given as counters, with those of the beginning of the run: whoever asks computes
    the use between any two answers, and no reader disturbs another.
    """

    def __init__(self, logbook: Logbook, peers: Collection[str]) -> None:
        self._logbook = logbook
        self._peers = frozenset(peers)
        self._run: str | None = None
        self._base: tuple[int, int] | None = None

    def begin(self, run: str | None) -> None:
        """The machine was told who it is; the same run again changes nothing but the log."""
        if run != self._run:
            self._run, self._base = run, None
            self._logbook.restart()
            asyncio.get_running_loop().call_later(_BASE_SECONDS, self._take_base)
        self._logbook.add("info", "envd", "initialized")

    def handle(self, request: Request) -> bytes:
        """The answer as JSON. Raises PermissionDeniedError or InvalidArgumentError."""
        if request.peer not in self._peers:
            raise PermissionDeniedError("/telemetry is not accepted from this address")
        after = request.query.get("after", "0")
        if not after.isdecimal() or len(after) > 18:
            raise InvalidArgumentError("query 'after' is not a number of an entry")
        pieces, more = self._logbook.after(request.query.get("stream", ""), int(after))
        base_busy, base_total = self._take_base()
        busy, total = cpu_ticks()
        metrics = usage() | {
            "cpu_busy": busy,
            "cpu_ticks": total,
            "cpu_busy_base": base_busy,
            "cpu_ticks_base": base_total,
        }
        head = {"metrics": metrics, "stream": self._logbook.stream, "more": more}
        # The entries are encoded already, each on its own, to bound the answer.
        return json.dumps(head)[:-1].encode() + b', "entries": [' + b",".join(pieces) + b"]}"

    def _take_base(self) -> tuple[int, int]:
        if self._base is None:
            self._base = cpu_ticks()
        return self._base
