"""Which warm clones there are, with races written down as orders of events."""

from __future__ import annotations

import itertools

import pytest

from emberbox.orchestrator.pool.demand import Sizes
from emberbox.orchestrator.pool.lifecycle import (
    Adopted,
    Asked,
    Began,
    Closed,
    Died,
    End,
    Ended,
    Event,
    Give,
    Instruction,
    InvalidTransition,
    Looked,
    Offered,
    State,
    Stock,
    Warm,
    Warmed,
    WarmingFailed,
)

PLENTY = Looked(100)
B1, B2 = frozenset({"b1"}), frozenset({"b2"})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stock(most: int = 2, least: int = 1, at_once: int = 1) -> tuple[Stock, Clock]:
    """An empty stock; its clones are called c1, c2, … in the order they are begun."""
    clock, numbers = Clock(), itertools.count(1)
    sizes = Sizes(most, least, at_once, idle_seconds=300)
    return Stock(sizes, clock, lambda: f"c{next(numbers)}"), clock


def after(stock: Stock, *events: Event) -> list[Instruction]:
    """What the last of these events asks for."""
    instructions: list[Instruction] = []
    for event in events:
        instructions = stock.handle(event)
    return instructions


def filled(most: int = 2, least: int = 1, at_once: int = 1) -> tuple[Stock, Clock]:
    """A stock of b1 that has all that it wants."""
    full, clock = stock(most, least, at_once)
    instructions = after(full, PLENTY, Offered(B1))
    while instructions:
        instructions = [
            following
            for one in instructions
            if isinstance(one, Warm)
            for following in after(full, Began(one.clone), Warmed(one.clone))
        ]
    assert full.count(State.READY) == most
    return full, clock


def test_it_fills_one_after_the_other() -> None:
    one, _ = stock()
    assert after(one, PLENTY) == []
    assert after(one, Offered(B1)) == [Warm("c1", "b1")]
    assert after(one, Began("c1"), Warmed("c1")) == [Warm("c2", "b1")]
    assert after(one, Began("c2"), Warmed("c2")) == []
    assert one.count(State.READY) == one.wanted == 2


def test_several_are_made_at_once_where_that_is_set() -> None:
    one, _ = stock(most=3, at_once=2)
    assert after(one, PLENTY, Offered(B1)) == [Warm("c1", "b1"), Warm("c2", "b1")]


def test_who_asks_gets_the_oldest_and_it_is_replaced() -> None:
    one, _ = filled()
    assert after(one, Asked("b1")) == [Give("c1"), Warm("c3", "b1")]
    assert after(one, Asked("b1")) == [Give("c2")]  # c3 is under way


def test_who_asks_for_another_build_gets_none() -> None:
    one, _ = filled()
    assert after(one, Asked("other")) == []
    assert one.count(State.READY) == 2


def test_nobody_is_promised_one_that_has_not_begun() -> None:
    one, _ = stock()
    assert after(one, PLENTY, Offered(B1), Asked("b1")) == []


def test_one_that_is_being_made_is_promised_when_none_is_ready() -> None:
    one, _ = stock()
    assert after(one, PLENTY, Offered(B1), Began("c1"), Asked("b1")) == [Give("c1")]
    # Nobody else gets it, and it is not kept when it is warm.
    assert after(one, Asked("b1")) == []
    assert after(one, Warmed("c1")) == [Warm("c2", "b1")]
    assert one.count(State.READY) == 0


def test_a_promised_one_that_fails_is_ended() -> None:
    one, _ = stock()
    after(one, PLENTY, Offered(B1), Began("c1"), Asked("b1"))
    assert after(one, WarmingFailed("c1", "broken")) == [End("c1", "broken")]
    assert after(one, Ended("c1")) == []  # not again at once


def test_after_a_failure_it_pauses_longer_each_time() -> None:
    one, clock = stock(most=1)
    [warm] = after(one, PLENTY, Offered(B1))
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        assert isinstance(warm, Warm)
        name = warm.clone
        after(one, Began(name), WarmingFailed(name, "broken"))
        clock.now += pause - 0.5
        assert after(one, Ended(name), PLENTY) == []
        clock.now += 0.5
        [warm] = after(one, PLENTY)
    assert isinstance(warm, Warm)
    after(one, Began(warm.clone), Warmed(warm.clone))
    # It has worked since, so there is no pause.
    assert after(one, Died(warm.clone, "gone")) == [End(warm.clone, "gone"), Warm("c10", "b1")]


def test_a_ready_one_that_dies_is_replaced() -> None:
    one, _ = filled(most=1)
    assert after(one, Died("c1", "gone")) == [End("c1", "gone"), Warm("c2", "b1")]
    assert after(one, Ended("c1"), Asked("b1")) == []


def test_the_death_of_one_that_was_given_away_is_its_sandboxs_affair() -> None:
    one, _ = filled(most=1)
    after(one, Asked("b1"))
    assert after(one, Died("c1", "gone")) == []


def test_clones_of_a_build_that_was_replaced_are_ended() -> None:
    one, _ = filled()
    after(one, Asked("b1"), Began("c3"))
    why = "its build is not offered any more"
    assert after(one, Offered(B2)) == [End("c2", why), End("c3", why), Warm("c4", "b2")]
    assert after(one, Asked("b1")) == []
    assert after(one, Began("c4"), Warmed("c4")) == [Warm("c5", "b2")]
    assert after(one, Asked("b2")) == [Give("c4")]


def test_a_promised_one_is_kept_when_its_build_is_replaced() -> None:
    one, _ = stock()
    after(one, PLENTY, Offered(B1), Began("c1"), Asked("b1"))
    assert after(one, Offered(B2)) == []
    assert after(one, Warmed("c1")) == [Warm("c2", "b2")]


def test_adopted_ones_stay_until_it_is_known_what_is_offered() -> None:
    one, _ = stock()
    assert after(one, Adopted("old", "b1"), Adopted("older", "b0"), PLENTY) == []
    why = "its build is not offered any more"
    assert after(one, Offered(B1)) == [End("older", why), Warm("c1", "b1")]
    assert after(one, Asked("b1"))[0] == Give("old")


def test_without_a_pool_adopted_ones_are_ended() -> None:
    one, _ = stock(most=0, least=0)
    after(one, Adopted("old", "b1"), PLENTY)
    assert after(one, Offered(B1)) == [End("old", "fewer are needed")]
    assert after(one, Asked("b1")) == []


def test_memory_bounds_it() -> None:
    one, _ = stock(most=3)
    assert after(one, Looked(0), Offered(B1)) == []
    assert after(one, Looked(1)) == [Warm("c1", "b1")]
    assert after(one, Began("c1"), Warmed("c1")) == []  # its memory is taken now
    assert after(one, Looked(1)) == [Warm("c2", "b1")]


def test_when_memory_is_short_the_newest_are_given_back() -> None:
    one, _ = filled(most=3)
    why = "memory is short"
    assert after(one, Looked(-2)) == [End("c2", why), End("c3", why)]
    assert after(one, Looked(-2)) == [End("c1", why)]
    assert after(one, Ended("c1"), Ended("c2"), Ended("c3"), Looked(0)) == []
    assert after(one, PLENTY) == [Warm("c4", "b1")]


def test_one_that_was_never_needed_for_a_while_is_given_back_down_to_the_least() -> None:
    one, clock = filled(most=3)
    for number in (3, 2):
        after(one, PLENTY)
        clock.now += 300
        assert after(one, PLENTY) == [End(f"c{number}", "fewer are needed")]
        after(one, Ended(f"c{number}"))
    after(one, PLENTY)
    clock.now += 300
    assert after(one, PLENTY) == []
    assert one.wanted == 1


def test_as_many_as_were_needed_are_kept() -> None:
    one, clock = filled(most=2)
    for _ in range(3):
        clock.now += 150
        after(one, PLENTY)
        given = after(one, Asked("b1"), Asked("b1"))
        assert isinstance(given[0], Give)
        name = next(name for name, clone in one.clones.items() if clone.state is State.WAITING)
        warm = after(one, Began(name), Warmed(name))
        assert isinstance(warm[0], Warm)
        after(one, Began(warm[0].clone), Warmed(warm[0].clone))
    assert one.wanted == 2


def test_it_grows_again_when_somebody_finds_none_ready() -> None:
    one, clock = filled(most=3)
    for _ in range(2):
        after(one, PLENTY)
        clock.now += 300
        after(one, PLENTY)
    assert one.wanted == 1
    after(one, Asked("b1"))
    assert one.wanted == 1
    after(one, Asked("b1"))
    assert one.wanted == 2


def test_those_that_have_the_fewest_come_first() -> None:
    one, _ = stock(most=2)
    after(one, PLENTY, Offered(B1), Began("c1"), Warmed("c1"))
    after(one, Began("c2"))
    assert after(one, Offered(B1 | B2)) == []
    assert after(one, Warmed("c2")) == [Warm("c3", "b2")]


def test_when_the_host_closes_all_are_ended_and_no_more_made() -> None:
    one, _ = filled()
    after(one, Asked("b1"), Began("c3"), Asked("b1"), Asked("b1"))
    why = "the host closes"
    assert after(one, Closed()) == [End("c3", why)]  # it was promised; c1 and c2 are sandboxes
    assert after(one, Ended("c3"), PLENTY) == []
    assert after(one, Asked("b1")) == []


def test_what_ends_takes_no_further_notice() -> None:
    one, _ = stock()
    after(one, PLENTY, Offered(B1), Began("c1"), Closed())
    assert after(one, Warmed("c1"), WarmingFailed("c1", "cancelled"), Died("c1", "gone")) == []


@pytest.mark.parametrize(
    "event", [Began("c9"), Warmed("c9"), WarmingFailed("c9", ""), Ended("c9"), Ended("c1")]
)
def test_what_cannot_be_tells_the_story(event: Event) -> None:
    one, _ = filled()
    with pytest.raises(InvalidTransition, match=r"clone c\d is .*Warmed"):
        after(one, event)
