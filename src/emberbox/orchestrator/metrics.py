"""What the orchestrator counts for Prometheus, from wherever it happens."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from emberbox.shared.metrics import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

_CALLS = Histogram(
    "emberbox_orchestrator_call_duration_seconds",
    "gRPC calls, by status; Events, which lasts, is not among them.",
    ("call", "code"),
    buckets=BUCKETS,
)
_OPERATIONS = Histogram(
    "emberbox_orchestrator_operation_duration_seconds",
    "Creates, resumes, pauses and checkpoints as a whole.",
    ("operation", "result"),
    buckets=BUCKETS,
)
_STEPS = Histogram(
    "emberbox_orchestrator_step_duration_seconds",
    "Their steps, also those that failed.",
    ("operation", "step"),
    buckets=BUCKETS,
)
_ENDS = Counter(
    "emberbox_orchestrator_sandbox_ends",
    "Runs that ended, by outcome.",
    ("outcome",),
)
OUTBOX = Gauge(
    "emberbox_orchestrator_outbox_entries",
    "Outcomes that no API server has taken yet.",
)


def observe_call(name: str, code: str, seconds: float) -> None:
    """A gRPC call has been answered."""
    _CALLS.labels(name, code).observe(seconds)


def observe_step(operation: str, step: str, seconds: float) -> None:
    """A step is over, well or not."""
    _STEPS.labels(operation, step).observe(seconds)


@contextmanager
def operation(name: str) -> Iterator[None]:
    """Time the block; it failed when it raises."""
    began, result = time.perf_counter(), "failed"
    try:
        yield
        result = "ok"
    finally:
        _OPERATIONS.labels(name, result).observe(time.perf_counter() - began)


def count_end(outcome: str) -> None:
    """A run is over."""
    _ENDS.labels(outcome).inc()
