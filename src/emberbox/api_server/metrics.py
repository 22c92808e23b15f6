"""What the API server counts for Prometheus."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from emberbox.api_server.records.lifecycle import LIVE
from emberbox.shared.metrics import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from emberbox.api_server.records.history import What
    from emberbox.api_server.records.lifecycle import State

_REQUESTS = Counter(
    "emberbox_api_requests",
    "REST requests that were answered, or whose client left.",
    ("method", "route", "status"),
)
_REQUEST_SECONDS = Histogram(
    "emberbox_api_request_duration_seconds",
    "From a REST request's head to the end of its answer.",
    ("method", "route"),
    buckets=BUCKETS,
)
_CALLS = Histogram(
    "emberbox_api_host_call_duration_seconds",
    "Calls to orchestrators, by gRPC status.",
    ("call", "code"),
    buckets=BUCKETS,
)
_CHANGES = Counter(
    "emberbox_api_sandbox_events",
    "What happened to sandboxes, as the event log calls it.",
    ("what",),
)
_SANDBOXES = Gauge(
    "emberbox_api_sandboxes",
    "Records of sandboxes that are not over, of all hosts.",
    ("state",),
)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """A request; `route` is a pattern. Clients invent methods: those are one."""
    known = method if method in _METHODS else "other"
    _REQUESTS.labels(known, route, status).inc()
    _REQUEST_SECONDS.labels(known, route).observe(seconds)


def count_event(what: What) -> None:
    """Something that the event log tells."""
    _CHANGES.labels(what.value).inc()


def set_sandboxes(counts: Mapping[State, int]) -> None:
    """How many records are in each live state now."""
    for state in LIVE:
        _SANDBOXES.labels(state.value).set(counts.get(state, 0))


@dataclass(slots=True)
class Call:
    """One call to an orchestrator; who makes it says how it ended, if not well."""

    code: str = "OK"


@contextmanager
def host_call(name: str) -> Iterator[Call]:
    """Time the block."""
    call, began = Call(), time.perf_counter()
    try:
        yield call
    finally:
        _CALLS.labels(name, call.code).observe(time.perf_counter() - began)
