"""What a proxy counts, and how it is told to Prometheus.

A process adds to a plain list of numbers, which costs next to nothing, and copies it into a row
of a file now and then. Rows of several processes are summed when somebody asks: the one that
answers need not be the one that counted, and what a process counted stays when it is killed.
"""

from __future__ import annotations

import enum
import mmap
from array import array
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from prometheus_client.core import Metric

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper ends, in seconds."""


class Count(enum.IntEnum):
    """Places in a row."""

    INTERIM = 0
    """Answers with a status of 101, then those of 2xx to 5xx."""
    SUCCESS = 1
    REDIRECT = 2
    CLIENT_ERROR = 3
    SERVER_ERROR = 4
    CUT = 5
    """Requests whose client left, or was reset, before its answer was complete."""
    SENT = 6
    """Bytes of bodies and tunnels towards clients."""
    RECEIVED = 7
    MICROSECONDS = 8
    """Of all requests together."""
    ACCEPTED = 9
    """Connections of clients."""
    CLOSED = 10
    CLIENT_LIMIT = 11
    """Requests refused because their client has too many connections."""
    SANDBOX_LIMIT = 12
    """Requests refused because their sandbox has too many."""
    FULL = 13
    """Connections refused because the process has too many."""
    BAD = 14
    """Requests that were malformed, too large or too slow."""
    DIALLED = 15
    """Connections made to upstreams."""
    DIALS_FAILED = 16
    REUSED = 17
    """Requests for which a kept connection to the upstream was taken."""
    REPEATED = 18
    """Requests sent once more because a kept connection had died."""
    TUNNELS = 19


FIRST_BUCKET = len(Count)
_LENGTH = FIRST_BUCKET + len(BUCKETS) + 1
ROW_BYTES = _LENGTH * 8

Counts = list[int]


def new_counts() -> Counts:
    """All zero."""
    return [0] * _LENGTH


class Row:
    """The counts of one process, kept in a file of their own: its successor goes on from them."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        with path.open("ab+") as file:
            file.truncate(ROW_BYTES)
            self._memory = mmap.mmap(file.fileno(), ROW_BYTES)
        self.counts: Counts = array("q", self._memory[:]).tolist()
        # Whoever had them is gone, and its connections with it.
        self.counts[Count.CLOSED] = self.counts[Count.ACCEPTED]

    def save(self) -> None:
        """Make the present counts visible to others."""
        self._memory[:] = array("q", self.counts).tobytes()


def total(paths: Iterable[Path]) -> Counts:
    """The sum of the rows in some files; what is not a whole row is left out."""
    sums = new_counts()
    for path in paths:
        row = path.read_bytes()
        if len(row) == ROW_BYTES:
            sums = [old + new for old, new in zip(sums, array("q", row), strict=True)]
    return sums


class Collector:
    """Gives the sum of some rows to prometheus_client."""

    def __init__(self, paths: Iterable[Path], prefix: str) -> None:
        self._paths = list(paths)
        self._prefix = prefix

    def collect(self) -> Iterator[Metric]:
        """Read the files and name what is in them."""
        counts = total(path for path in self._paths if path.exists())
        yield from _requests(self._prefix, counts)
        yield from _connections(self._prefix, counts)


def _requests(prefix: str, counts: Sequence[int]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        f"{prefix}_requests", "Requests, by class of the status answered.", labels=["status"]
    )
    names = ("101", "2xx", "3xx", "4xx", "5xx", "cut")
    for name, count in zip(names, counts[Count.INTERIM :], strict=False):
        requests.add_metric([name], count)
    yield requests
    body = CounterMetricFamily(
        f"{prefix}_body_bytes", "Bytes of bodies and tunnels.", labels=["direction"]
    )
    body.add_metric(["to_client"], counts[Count.SENT])
    body.add_metric(["from_client"], counts[Count.RECEIVED])
    yield body
    refused = CounterMetricFamily(
        f"{prefix}_refused", "What the proxy refused by itself.", labels=["reason"]
    )
    for reason, place in _REFUSED.items():
        refused.add_metric([reason], counts[place])
    yield refused
    yield _durations(f"{prefix}_request_seconds", counts)


_REFUSED = {
    "client_limit": Count.CLIENT_LIMIT,
    "sandbox_limit": Count.SANDBOX_LIMIT,
    "full": Count.FULL,
    "bad_request": Count.BAD,
}


def _durations(name: str, counts: Sequence[int]) -> Metric:
    family = HistogramMetricFamily(name, "From the end of a request's head to its last byte.")
    buckets, seen = [], 0
    for edge, count in zip([*map(str, BUCKETS), "+Inf"], counts[FIRST_BUCKET:], strict=True):
        seen += count
        buckets.append((edge, float(seen)))
    family.add_metric([], buckets, counts[Count.MICROSECONDS] / 1e6)
    return family


def _connections(prefix: str, counts: Sequence[int]) -> Iterator[Metric]:
    yield CounterMetricFamily(
        f"{prefix}_connections", "Connections of clients.", value=counts[Count.ACCEPTED]
    )
    yield GaugeMetricFamily(
        f"{prefix}_connections_open",
        "Connections of clients that are open now.",
        value=counts[Count.ACCEPTED] - counts[Count.CLOSED],
    )
    yield CounterMetricFamily(f"{prefix}_tunnels", "Upgrades granted.", value=counts[Count.TUNNELS])
    upstream = CounterMetricFamily(
        f"{prefix}_upstream", "How requests came by a connection upstream.", labels=["event"]
    )
    for event, place in _UPSTREAM.items():
        upstream.add_metric([event], counts[place])
    yield upstream


_UPSTREAM = {
    "dialled": Count.DIALLED,
    "dial_failed": Count.DIALS_FAILED,
    "reused": Count.REUSED,
    "repeated": Count.REPEATED,
}
