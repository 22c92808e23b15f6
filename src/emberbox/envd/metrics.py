"""GET /metrics: what the guest uses, from /proc and statvfs."""

from __future__ import annotations

import os
import time

_MIB = 1024 * 1024


class Metrics:
    """CPU use is that since the last reading, the first time since boot."""

    def __init__(self) -> None:
        self._busy = 0
        self._total = 0

    def read(self) -> dict[str, int | float]:
        """Sizes in bytes unless the name says otherwise; `ts` in Unix seconds."""
        used = usage()
        return {
            "ts": int(time.time()),
            **used,
            "cpu_used_pct": self._cpu_percent(),
            "mem_total_mib": used["mem_total"] // _MIB,
            "mem_used_mib": used["mem_used"] // _MIB,
        }

    def _cpu_percent(self) -> float:
        busy, total = cpu_ticks()
        spent, passed = busy - self._busy, total - self._total
        self._busy, self._total = busy, total
        return round(100 * spent / passed, 2) if passed > 0 else 0.0


def usage() -> dict[str, int]:
    """Memory and disk in bytes, and the number of processors."""
    memory = _memory()
    disk = os.statvfs("/")
    return {
        "cpu_count": os.cpu_count() or 1,
        "mem_total": memory["MemTotal"],
        "mem_used": memory["MemTotal"] - memory["MemAvailable"],
        "mem_cache": memory["Cached"],
        "disk_used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        "disk_total": disk.f_blocks * disk.f_frsize,
    }


def cpu_ticks() -> tuple[int, int]:
    """Clock ticks since boot that all processors were busy, and that have passed."""
    ticks = [int(text) for text in _head("/proc/stat").split(maxsplit=9)[1:9]]
    total = sum(ticks)
    return total - ticks[3] - ticks[4], total  # less idle and iowait


def _memory() -> dict[str, int]:
    # What is wanted is in the first five lines of fifty: the host asks often.
    rows = (line.split() for line in _head("/proc/meminfo").splitlines()[:5])
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def _head(path: str) -> str:
    """The beginning of a file of the kernel's, without the layers of a text file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 512).decode("ascii")
    finally:
        os.close(fd)
