"""What happened, counted and logged: the engine notes ends of requests, and they are looked at in
batches, as a loop over many costs less than many detours on the way of requests."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from emberbox.proxying.counts import BUCKETS, FIRST_BUCKET, Count, new_counts

if TYPE_CHECKING:
    from emberbox.proxying.accesslog import AccessLog
    from emberbox.proxying.counts import Row
    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.resolving import Target

_SOON = 0.02
"""Seconds after which an end that was noted is looked at."""


class Client(Protocol):
    """Who asked."""

    peer: str
    """Its address."""
    number: int
    """Of its connection, in this process."""


class Entry(Protocol):
    """A request that is over. Times are of `time.monotonic`.

    Without a request its head could not be read; without a target it was not routed.
    """

    @property
    def client(self) -> Client:
        """Who asked."""
        ...

    @property
    def request(self) -> RequestHead | None:
        """What for."""
        ...

    target: Target | None
    ordinal: int
    """Of the request, in the connection."""
    begun: float
    ended: float
    status: int
    """0 when none was told."""
    sent: int
    received: int
    cut: bool
    """The client left, or was reset, before its answer was complete."""


class Refusal:
    """The entry of a request whose head could not be read."""

    request: RequestHead | None = None
    target: Target | None = None
    sent = 0
    received = 0
    cut = False

    def __init__(self, client: Client, ordinal: int, status: int) -> None:
        self.client = client
        self.ordinal = ordinal
        self.status = status
        self.begun = self.ended = monotonic()


class Journal:
    """Must be used in an event loop. Without a row nobody else sees the counts."""

    def __init__(self, *, row: Row | None = None, log: AccessLog | None = None) -> None:
        self._row = row
        self._log = log
        self.counts = new_counts() if row is None else row.counts
        self.ended: list[Entry] = []

    def note(self, entry: Entry) -> None:
        """A request is over."""
        if not self.ended:
            asyncio.get_running_loop().call_later(_SOON, self.flush)
        self.ended.append(entry)

    def flush(self) -> None:
        """Look at what was noted."""
        entries, self.ended = self.ended, []
        counts = self.counts
        sent = received = 0
        taken = 0.0
        for entry in entries:
            counts[5 if entry.cut else min(entry.status // 100, 5) - 1] += 1
            sent += entry.sent
            received += entry.received
            seconds = entry.ended - entry.begun
            counts[FIRST_BUCKET + bisect_left(BUCKETS, seconds)] += 1
            taken += seconds
        counts[Count.SENT] += sent
        counts[Count.RECEIVED] += received
        counts[Count.MICROSECONDS] += int(taken * 1e6)
        if self._log is not None and entries:
            self._log.write(entries)

    def save(self) -> None:
        """Make the counts visible to other processes."""
        if self._row is not None:
            self._row.save()

    def close(self) -> None:
        """Look at the rest."""
        self.flush()
        self.save()
        if self._log is not None:
            self._log.close()
