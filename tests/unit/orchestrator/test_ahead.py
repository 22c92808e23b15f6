"""Work is done ahead of who takes its results, and not too far."""

from __future__ import annotations

import threading

import pytest

from emberbox.orchestrator.machines.ahead import Ahead


def test_results_come_in_order() -> None:
    with Ahead(lambda number: number * 2, range(50), 3) as doubled:
        assert list(doubled) == list(range(0, 100, 2))


def test_it_begins_at_once_and_goes_no_further_than_it_may() -> None:
    begun = threading.Semaphore(0)
    taken: list[int] = []

    def work(number: int) -> int:
        taken.append(number)
        begun.release()
        return number

    with Ahead(work, range(10), 2) as results:
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        assert sorted(taken) == [0, 1]
        assert list(results) == list(range(10))


def test_an_error_is_raised_in_its_place_and_ends_the_rest() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError(number)
        return number

    results: list[int] = []
    with pytest.raises(ValueError, match="2"), Ahead(work, range(1000), 2) as found:
        results.extend(found)
    assert results == [0, 1]


def test_nothing_is_no_result() -> None:
    nothing: list[int] = []
    with Ahead(str, nothing, 4) as none:
        assert list(none) == []
