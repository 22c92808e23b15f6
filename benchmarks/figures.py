"""Medians and tails."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50 and p99, to a tenth. With fewer than 100 values p99 is the largest."""
    ordered = sorted(values)
    rank = max(0, -(-99 * len(ordered) // 100) - 1)
    return {"p50": round(statistics.median(ordered), 1), "p99": round(ordered[rank], 1)}


class Clock:
    """Milliseconds of the block."""

    def __init__(self) -> None:
        self.ms = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the block."""
        begun = time.perf_counter()
        yield
        self.ms = (time.perf_counter() - begun) * 1000


def at_least_one(text: str) -> int:
    """A count for argparse. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def progress(doing: str, done: int, of: int) -> None:
    """One line on stderr that is written over."""
    end = "\n" if done == of else ""
    print(f"\r{doing}: {done}/{of}", end=end, file=sys.stderr, flush=True)
