from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "outbox.db")
    yield box
    box.close()


def test_outcomes_survive_a_restart_until_they_are_acknowledged(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "outbox.db")
    first.add("i1", "e1", "killed", "asked", 10.0)
    first.add("i2", "e2", "crashed", "panic", 11.0)
    first.close()

    second = Outbox(tmp_path / "outbox.db")
    entries = second.after(0)
    assert [(e.sandbox_id, e.outcome, e.reason, e.at) for e in entries] == [
        ("i1", "killed", "asked", 10.0),
        ("i2", "crashed", "panic", 11.0),
    ]
    second.acknowledge(entries[0].number)
    assert [e.sandbox_id for e in second.after(0)] == ["i2"]
    second.close()


def test_numbers_are_never_used_again(outbox: Outbox) -> None:
    outbox.add("i1", "e1", "killed", "", 0.0)
    number = outbox.after(0)[0].number
    outbox.acknowledge(number)
    outbox.add("i2", "e2", "killed", "", 0.0)
    assert outbox.after(0)[0].number > number


def test_of_two_outcomes_of_one_run_the_first_stays(outbox: Outbox) -> None:
    outbox.add("i1", "e1", "expired", "deadline", 1.0)
    outbox.add("i1", "e1", "crashed", "found dead", 2.0)
    assert [e.outcome for e in outbox.after(0)] == ["expired"]


async def test_a_reader_is_woken_by_an_addition(outbox: Outbox) -> None:
    added = outbox.added
    assert not added.is_set()
    outbox.add("i1", "e1", "killed", "", 0.0)
    await asyncio.wait_for(added.wait(), 1)
    assert not outbox.added.is_set()
