"""Which entries a caller asks for."""

from __future__ import annotations

import pytest

from emberbox.orchestrator.telemetry.entries import Entry, LogQuery

ENTRIES = [
    Entry(1.0, "info", "orchestrator", "one"),
    Entry(3.0, "warn", "envd", "three", {"a": "b"}, ("aa", 2)),
    Entry(2.0005, "error", "process", "two", {}, ("aa", 1)),
]


def messages(query: LogQuery) -> list[str]:
    return [entry.message for entry in query.select(ENTRIES)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (LogQuery(), ["one", "two", "three"]),
        (LogQuery(newest_first=True), ["three", "two", "one"]),
        (LogQuery(limit=2), ["one", "two"]),
        (LogQuery(limit=2, newest_first=True), ["three", "two"]),
        (LogQuery(limit=0), []),
        (LogQuery(start_ms=2000), ["two", "three"]),
        (LogQuery(start_ms=2001), ["three"]),
        (LogQuery(end_ms=2000), ["one", "two"]),
        (LogQuery(level="debug"), ["one", "two", "three"]),
        (LogQuery(level="warn"), ["two", "three"]),
        (LogQuery(level="error"), ["two"]),
        (LogQuery(search="t"), ["two", "three"]),
        (LogQuery(search="T"), []),
    ],
)
def test_queries(query: LogQuery, expected: list[str]) -> None:
    assert messages(query) == expected


def test_on_disk() -> None:
    assert [Entry.from_row(entry.to_row()) for entry in ENTRIES] == ENTRIES


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {},
        [1, 2, 3, 4, {}, []],
        ["x"] * 6,
        [float("nan"), "info", "envd", "", {}, []],
        [1e300, "info", "envd", "", {}, []],
    ],
)
def test_what_is_no_entry_on_disk(row: object) -> None:
    assert Entry.from_row(row) is None  # type: ignore[arg-type]
