"""What the host has at the moment at which Prometheus asks."""

from __future__ import annotations

from collections import Counter as Tally
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.sandboxes.host import Sandboxes

_MIB = 1 << 20


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
