"""Bounded files of JSON lines."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.telemetry.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "made" / "when needed", 1000)


def test_what_was_written_is_read_in_order(journal: Journal) -> None:
    assert journal.read() == []
    assert not journal.exists()
    journal.append([[1, "ä\n\ud800"], {"a": None}])
    journal.append([])
    journal.append([3])
    assert journal.read() == [[1, "ä\n\ud800"], {"a": None}, 3]
    assert journal.exists()


def test_it_never_grows_beyond_its_bound_and_keeps_the_newest_half(journal: Journal) -> None:
    for number in range(1000):
        journal.append([number])
        files = list(journal.path.parent.iterdir())
        assert sum(file.stat().st_size for file in files) <= 1000
    rows = journal.read()
    assert rows == list(range(1000 - len(rows), 1000))
    assert len(rows) * len("999\n") >= 500


def test_many_rows_at_once_keep_the_bound_too(journal: Journal) -> None:
    journal.append(list(range(1000)))
    assert sum(file.stat().st_size for file in journal.path.parent.iterdir()) <= 1000
    assert journal.read()[-1] == 999
    assert journal.read() == list(range(1000 - len(journal.read()), 1000))


def test_a_row_that_has_no_room_is_left_out(journal: Journal) -> None:
    journal.append([1, "x" * 600, 2])
    assert journal.read() == [1, 2]


def test_a_reader_beside_a_writer_misses_nothing(journal: Journal) -> None:
    """Files change places under it."""
    stop = threading.Event()

    def read() -> list[list[int]]:
        seen: list[list[int]] = []
        while not stop.is_set():
            seen.append([row for row in journal.read() if isinstance(row, int)])
        return seen

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        for number in range(3000):
            journal.append([number])
        stop.set()
        seen = [rows for rows in reading.result(timeout=30) if rows]
    for rows in seen:
        assert rows == list(range(rows[0], rows[-1] + 1))
        assert rows[-1] < 500 or len(rows) * len("999\n") >= 400


@pytest.mark.parametrize("torn", [b"[2", b'{"x": "\xff', b"\0\0\0"])
def test_a_torn_last_line_is_left_out(journal: Journal, torn: bytes) -> None:
    journal.append([1])
    with journal.path.open("ab") as file:
        file.write(torn)
    assert journal.read() == [1]
    journal.append([3])
    assert journal.read() == [1, 3]


def test_removed(journal: Journal) -> None:
    for number in range(300):
        journal.append([number])
    journal.remove()
    assert journal.read() == []
    assert not journal.exists()
    journal.remove()
