"""What the guest kernel must be told about the processor's clock when it runs in software.

The kernel finds the frequency of the time stamp counter by watching the emulated PIT for 10 to
50 ms. On a busy host the emulation is interrupted, the result is refused, and the kernel then
waits for ever for timer interrupts that QEMU's `microvm` does not route (measured: 2 of 6 boots
hang with twice as many busy processes as cores). Under TCG the guest reads the host's counter,
so its frequency is measured here and given on the command line.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import statistics
import time
from functools import cache

# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_WINDOW = 0.02
_READINGS = 20


def software_clock_is_known() -> bool:
    """Whether a guest that runs by TCG on this host can be told: it reads the host's counter."""
    return platform.machine() == "x86_64"


@cache
def software_clock_options() -> str:
    """Kernel command line options for a guest that runs by TCG on this host.

    `tsc=reliable` keeps the kernel from giving the counter up later, when an interrupted
    emulation looks like a clock that jumps: without it the guest falls back to a clock of 4 ms.
    Takes 60 ms once. Empty where the clock is not known.
    """
    if not software_clock_is_known():
        return ""
    return f"tsc=reliable tsc_early_khz={tsc_khz()}"


def tsc_khz() -> int:
    """Frequency of the time stamp counter of this host in kHz, as the median of three."""
    with mmap.mmap(
        -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ) as code:
        code.write(_RDTSC)
        start = ctypes.c_char.from_buffer(code)
        try:
            read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
            return round(statistics.median(_measure(read) for _ in range(3)))
        finally:
            # The map cannot be closed while a view of it is there.
            del start


def _measure(read: ctypes._CFunctionType) -> float:
    time_before, count_before = _both(read)
    time.sleep(_WINDOW)
    time_after, count_after = _both(read)
    return (count_after - count_before) * 1e6 / (time_after - time_before)


def _both(read: ctypes._CFunctionType) -> tuple[int, int]:
    """The clock in ns and the counter at one moment: the reading that was interrupted least."""
    readings = []
    for _ in range(_READINGS):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        count = int(read())
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        readings.append((after - before, (before + after) // 2, count))
    _, moment, count = min(readings)
    return moment, count
