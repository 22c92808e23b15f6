"""What a proxy counted, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from emberbox.proxying.counts import BUCKETS, FIRST_BUCKET, Count
from emberbox.proxying.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric

    from emberbox.proxying.counts import Counts


def exposition(collector: Collector) -> Reply:
    """The answer to a scrape."""
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    return Reply(200, text=text, kind="text/plain; version=0.0.4")


class Collector:
    """Gives what was counted to prometheus_client, under names that begin with `prefix`."""

    def __init__(self, read: Callable[[], Counts], prefix: str) -> None:
        self._read = read
        self._prefix = prefix

    def collect(self) -> Iterator[Metric]:
        """Name what there is now."""
        counts = self._read()
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
