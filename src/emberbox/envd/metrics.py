"""GET /metrics: what the guest uses, from /proc and statvfs."""

from __future__ import annotations

import os
import time
from pathlib import Path

_MIB = 1024 * 1024


class Metrics:
    """CPU use is that since the last reading, the first time since boot."""

    def __init__(self) -> None:
        self._busy = 0
        self._total = 0

    def read(self) -> dict[str, int | float]:
        """Sizes in bytes unless the name says otherwise; `ts` in Unix seconds."""
        memory = _memory()
        disk = os.statvfs("/")
        used = memory["MemTotal"] - memory["MemAvailable"]
        return {
            "ts": int(time.time()),
            "cpu_count": os.cpu_count() or 1,
            "cpu_used_pct": self._cpu_percent(),
            "mem_total": memory["MemTotal"],
            "mem_used": used,
            "mem_cache": memory["Cached"],
            "mem_total_mib": memory["MemTotal"] // _MIB,
            "mem_used_mib": used // _MIB,
            "disk_used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            "disk_total": disk.f_blocks * disk.f_frsize,
        }

    def _cpu_percent(self) -> float:
        with Path("/proc/stat").open() as lines:
            ticks = [int(text) for text in lines.readline().split()[1:9]]
        total, busy = sum(ticks), sum(ticks) - ticks[3] - ticks[4]  # less idle and iowait
        spent, passed = busy - self._busy, total - self._total
        self._busy, self._total = busy, total
        return round(100 * spent / passed, 2) if passed > 0 else 0.0


def _memory() -> dict[str, int]:
    with Path("/proc/meminfo").open() as lines:
        rows = (line.split() for line in lines)
        return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}
