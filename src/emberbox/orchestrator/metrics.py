"""What the orchestrator counts for Prometheus."""

from __future__ import annotations

import time
from collections import Counter as Tally
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.lifecycle import State
from emberbox.shared.metrics import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.sandboxes.host import Sandboxes

_MIB = 1 << 20
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


class HostCollector(Collector):
    """What is read when somebody asks. From another thread: it only looks."""

    def __init__(self, sandboxes: Sandboxes, slots: SlotPool, state: Path) -> None:
        self._sandboxes = sandboxes
        self._slots = slots
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Sandboxes, slots, memory and disk."""
        yield self._by_state()
        yield self._warm()
        total, available = admission.memory_mb()
        for name, text, value in (
            ("slots_ready", "Network slots that wait for a sandbox.", self._slots.ready),
            ("memory_bytes", "Memory of the host.", total * _MIB),
            ("memory_available_bytes", "Of it what is free for VMs.", available * _MIB),
            (
                "disk_available_bytes",
                "Free on the file system of EMBERBOX_HOME.",
                admission.disk_available_mb(self._state) * _MIB,
            ),
        ):
            yield GaugeMetricFamily(f"emberbox_orchestrator_{name}", text, value=value)

    def _warm(self) -> GaugeMetricFamily:
        counts = self._sandboxes.pool
        family = GaugeMetricFamily(
            "emberbox_orchestrator_warm_clones", "Clones of the warm pool.", labels=("state",)
        )
        for state in ("ready", "making", "wanted"):
            family.add_metric([state], getattr(counts, state))
        return family

    def _by_state(self) -> GaugeMetricFamily:
        found = Tally(sandbox.state for sandbox in self._sandboxes)
        family = GaugeMetricFamily(
            "emberbox_orchestrator_sandboxes", "Sandboxes that are not gone.", labels=("state",)
        )
        for state in State:
            family.add_metric([state.value], found[state])
        return family


@contextmanager
def collecting(collector: Collector) -> Iterator[None]:
    """Ask it along with the others while the block runs."""
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
