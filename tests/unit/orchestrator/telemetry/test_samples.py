"""CPU use between samples, what is on disk, and the window of a long time."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from emberbox.orchestrator.telemetry.guest import Usage
from emberbox.orchestrator.telemetry.samples import MOST_SAMPLES, Sample, window

USAGE = Usage(
    cpu_count=2,
    cpu_busy=150,
    cpu_ticks=1000,
    cpu_busy_base=100,
    cpu_ticks_base=800,
    mem_used=1,
    mem_total=2,
    mem_cache=3,
    disk_used=4,
    disk_total=5,
)


def sample(at: float, percent: float = 0.0) -> Sample:
    return dataclasses.replace(Sample.of(at, USAGE, None), cpu_used_percent=percent)


def test_the_first_sample_counts_from_the_beginning_of_the_run() -> None:
    assert Sample.of(1.0, USAGE, None).cpu_used_percent == 25.0


def test_a_later_sample_counts_from_the_one_before() -> None:
    before = Sample.of(1.0, USAGE, None)
    now = USAGE.model_copy(update={"cpu_busy": 240, "cpu_ticks": 1100})
    assert Sample.of(2.0, now, before).cpu_used_percent == 90.0


@pytest.mark.parametrize("ticks", [700, 5000])
def test_a_sample_of_another_count_is_not_counted_from(ticks: int) -> None:
    """One from before this run began, and one that an older snapshot knows nothing of."""
    before = dataclasses.replace(Sample.of(1.0, USAGE, None), cpu_ticks=ticks)
    assert Sample.of(2.0, USAGE, before).cpu_used_percent == 25.0


def test_no_time_has_passed() -> None:
    before = Sample.of(1.0, USAGE, None)
    assert Sample.of(1.0, USAGE, before).cpu_used_percent == 0.0


def test_counters_that_lie_give_a_percentage_all_the_same() -> None:
    lie = USAGE.model_copy(update={"cpu_busy": 1 << 60})
    assert Sample.of(1.0, lie, None).cpu_used_percent == 100.0
    lie = USAGE.model_copy(update={"cpu_busy": 0})
    assert Sample.of(1.0, lie, None).cpu_used_percent == 0.0


def test_on_disk() -> None:
    one = sample(12.345, 6.7)
    assert Sample.from_row(one.to_row()) == one


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        [1],
        ["x"] * 10,
        [1.0, 2, "3", 4, 5, 6, 7, 8, 9, 10],
        [float("nan"), *range(2, 11)],
        [float("inf"), *range(2, 11)],
        [1e300, *range(2, 11)],
        [1, 2, float("nan"), *range(4, 11)],
        [1, -1, *range(3, 11)],
        [*range(1, 10), 1 << 64],
    ],
)
def test_what_is_no_sample_on_disk(row: list[int | str]) -> None:
    assert Sample.from_row(list(row) if row else None) is None


def test_the_window_is_inclusive_by_seconds() -> None:
    samples = [sample(at) for at in (9.9, 10.0, 10.9, 11.0, 12.9, 13.0)]
    assert [s.at for s in window(samples, 10, 12)] == [10.0, 10.9, 11.0, 12.9]
    assert [s.at for s in window(samples, None, 9)] == [9.9]
    assert [s.at for s in window(samples, 13, None)] == [13.0]
    assert window(samples, None, None) == samples
    assert window(samples, 0, 5) == []


def test_a_long_time_is_thinned_out_evenly() -> None:
    samples = [sample(10.0 * n, percent=n % 2 * 100) for n in range(5 * MOST_SAMPLES)]
    found = window(samples, None, None)
    assert MOST_SAMPLES * 0.9 < len(found) <= MOST_SAMPLES
    assert found[-1].at == samples[-1].at
    gaps = {round(b.at - a.at) for a, b in itertools.pairwise(found)}
    assert gaps <= {40, 50, 60}
    assert all(20 <= s.cpu_used_percent <= 80 for s in found)


def test_samples_of_one_moment_are_thinned_out_too() -> None:
    assert len(window([sample(1.0)] * (MOST_SAMPLES + 1), None, None)) == MOST_SAMPLES


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumped_costs_neither_order_nor_samples(jump: float) -> None:
    samples = [sample(1e8 + n + (jump if n > 3000 else 0)) for n in range(6000)]
    found = [s.at for s in window(samples, None, None)]
    assert found == sorted(found)
    assert len(found) == MOST_SAMPLES


def test_few_samples_are_in_order_after_a_jump_too() -> None:
    assert [s.at for s in window([sample(5), sample(3)], None, None)] == [3, 5]
