"""Samples of what a sandbox uses, and the window of them that a caller gets."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple, dataclass, fields, replace
from typing import TYPE_CHECKING

from emberbox.orchestrator.telemetry.journal import is_counter, is_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

    from emberbox.orchestrator.telemetry.guest import Usage

MOST_SAMPLES = 1000
"""In one answer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Use at one moment (unix seconds, the host's clock); sizes in bytes.

    `cpu_used_percent` is of all processors together, since the sample before. The two counters
    are the guest's clock ticks since its boot, from which the next sample is computed.
    """

    at: float
    cpu_count: int
    cpu_used_percent: float
    mem_used: int
    mem_total: int
    mem_cache: int
    disk_used: int
    disk_total: int
    cpu_busy: int
    cpu_ticks: int

    @classmethod
    def of(cls, at: float, usage: Usage, before: Sample | None) -> Sample:
        """The sample of a guest's answer; `before` is the one of its sandbox before that."""
        return cls(
            at=round(at, 3),
            cpu_count=usage.cpu_count,
            cpu_used_percent=_cpu_percent(usage, before),
            mem_used=usage.mem_used,
            mem_total=usage.mem_total,
            mem_cache=usage.mem_cache,
            disk_used=usage.disk_used,
            disk_total=usage.disk_total,
            cpu_busy=usage.cpu_busy,
            cpu_ticks=usage.cpu_ticks,
        )

    def to_row(self) -> list[JsonValue]:
        """The form on disk."""
        return list(astuple(self))

    @classmethod
    def from_row(cls, row: JsonValue) -> Sample | None:
        """What `to_row` gave; None for anything else."""
        if not isinstance(row, list) or len(row) != len(fields(cls)):
            return None
        at, count, percent, *sizes = row
        if not is_number(at) or not is_number(percent):
            return None
        whole = [value for value in (count, *sizes) if is_counter(value)]
        if len(whole) != len(sizes) + 1:
            return None
        return cls(float(at), whole[0], float(percent), *whole[1:])


def window(samples: Sequence[Sample], start: int | None, end: int | None) -> list[Sample]:
    """Those of `start` to `end` (unix seconds, inclusive), oldest first, `MOST_SAMPLES` at most.

    More than that are thinned out: each of so many equal parts is told by its last sample with
    the mean of the CPU use of all.
    """
    first = -math.inf if start is None else start
    last = math.inf if end is None else end
    found = [sample for sample in samples if first <= math.floor(sample.at) <= last]
    found.sort(key=lambda sample: sample.at)  # the clock may have been set back
    if len(found) <= MOST_SAMPLES:
        return found
    return [_merged(part) for part in _parts(found)]


def _parts(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """Parts of as many samples, not of as much time: a clock that jumped would make one of all."""
    bounds = (place * len(samples) // MOST_SAMPLES for place in range(MOST_SAMPLES + 1))
    return (samples[begin:end] for begin, end in itertools.pairwise(bounds))


def _merged(part: Sequence[Sample]) -> Sample:
    mean = sum(sample.cpu_used_percent for sample in part) / len(part)
    return replace(part[-1], cpu_used_percent=round(mean, 2))


def _cpu_percent(usage: Usage, before: Sample | None) -> float:
    busy, ticks = usage.cpu_busy_base, usage.cpu_ticks_base
    # An older snapshot that was taken up again counts from before that sample.
    if before is not None and ticks <= before.cpu_ticks <= usage.cpu_ticks:
        busy, ticks = before.cpu_busy, before.cpu_ticks
    passed = usage.cpu_ticks - ticks
    if passed <= 0:
        return 0.0
    return round(min(100.0, max(0.0, 100 * (usage.cpu_busy - busy) / passed)), 2)
