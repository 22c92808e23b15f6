"""What a sandbox uses, as the control plane tells it. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .json_fields import JsonObject, integer, number, time

if TYPE_CHECKING:
    from datetime import datetime


@dataclass
class SandboxMetrics:
    """One sample. Sizes are in bytes, the time is aware."""

    cpu_count: int
    cpu_used_pct: float
    """Of all CPUs together, 0 to 100."""
    disk_total: int
    disk_used: int
    mem_total: int
    mem_used: int
    mem_cache: int
    """Memory that caches files, and is given to who needs it."""
    timestamp: datetime

    @classmethod
    def from_json(cls, record: JsonObject) -> SandboxMetrics:
        """From `SandboxMetric`."""
        return cls(
            cpu_count=integer(record, "cpuCount"),
            cpu_used_pct=number(record, "cpuUsedPct"),
            disk_total=integer(record, "diskTotal"),
            disk_used=integer(record, "diskUsed"),
            mem_total=integer(record, "memTotal"),
            mem_used=integer(record, "memUsed"),
            mem_cache=integer(record, "memCache"),
            timestamp=time(record, "timestamp"),
        )


def range_parameters(start: datetime | None, end: datetime | None) -> dict[str, str]:
    """Query of the metrics' route, in whole seconds: nothing in the range is left out.

    Naive times are taken as local.
    """
    first = {} if start is None else {"start": str(math.floor(start.timestamp()))}
    last = {} if end is None else {"end": str(math.ceil(end.timestamp()))}
    return {**first, **last}
