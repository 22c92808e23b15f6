"""What this host is and has, for API servers."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.orchestrator.sandboxes import admission

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emberbox.orchestrator.machines.driver import DriverReport
    from emberbox.orchestrator.readiness import Readiness
    from emberbox.orchestrator.sandboxes.host import Sandboxes

_TICKS = os.sysconf("SC_CLK_TCK")
_SHORTEST = 1.0
"""Seconds between two readings of the processors; in less there are too few ticks."""


def model_of_processors() -> str:
    """As /proc/cpuinfo names the first processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What does not change while the program runs. Addresses are host:port."""

    node_id: str
    address: str
    data_address: str
    labels: Mapping[str, str]
    shared_directory: str = ""
    cpu_model: str = field(default_factory=model_of_processors)


class NodeInfo:
    """Readings of the host."""

    def __init__(
        self,
        identity: NodeIdentity,
        state: Path,
        report: DriverReport,
        readiness: Readiness,
        sandboxes: Sandboxes,
    ) -> None:
        self._identity = identity
        self._state = state
        self._report = report
        self._readiness = readiness
        self._sandboxes = sandboxes
        self._processors = Processors()

    def read(self) -> pb.ServiceInfoResponse:
        """As it is at this moment."""
        total, available = admission.memory_mb()
        identity, limits, pool = self._identity, self._sandboxes.limits, self._sandboxes.pool
        return pb.ServiceInfoResponse(
            node_id=identity.node_id,
            address=identity.address,
            data_address=identity.data_address,
            labels=identity.labels,
            shared_directory=identity.shared_directory,
            version=version("emberbox"),
            driver=self._report.name,
            accelerator=self._report.accelerator,
            sandboxes_running=len(self._sandboxes.running()),
            cpu_model=identity.cpu_model,
            cpu_count=os.cpu_count() or 1,
            cpu_used=self._processors.used(),
            memory_total_mb=total,
            memory_available_mb=available,
            disk_available_mb=admission.disk_available_mb(self._state),
            max_sandboxes=limits.max_sandboxes,
            max_ram_mb=int(total * limits.memory_overcommit),
            ready=self._readiness.ready,
            status=self._readiness.status,
            pool_ready=pool.ready,
            pool_making=pool.making,
            pool_wanted=pool.wanted,
        )


class Processors:
    """How many of the host's processors are busy."""

    def __init__(
        self,
        read: Callable[[], str] = lambda: Path("/proc/stat").read_text(encoding="ascii"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._at = clock()
        self._busy = busy_seconds(read())
        self._used = 0.0

    def used(self) -> float:
        """On average since the reading before, a second ago at least; 0 until there is one."""
        now = self._clock()
        if now - self._at >= _SHORTEST:
            busy = busy_seconds(self._read())
            self._used = max(busy - self._busy, 0.0) / (now - self._at)
            self._at, self._busy = now, busy
        return self._used


def busy_seconds(stat: str) -> float:
    """Seconds that all processors together have worked, from the first line of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS
