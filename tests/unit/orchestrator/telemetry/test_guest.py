"""What a guest answers is not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.telemetry.guest import parse

USAGE = {
    "cpu_count": 2,
    "cpu_busy": 1,
    "cpu_ticks": 2,
    "mem_used": 3,
    "mem_total": 4,
    "mem_cache": 5,
    "disk_used": 6,
    "disk_total": 7,
}
ENTRY: list[Any] = [1, 100.0, "info", "process", "started", {"pid": "1"}]


def answer(**changes: Any) -> bytes:
    whole = {"metrics": USAGE, "stream": "ab12", "more": False, "entries": [ENTRY], **changes}
    return json.dumps(whole).encode()


def entry(place: int, value: object) -> dict[str, Any]:
    return {"entries": [[*ENTRY[:place], value, *ENTRY[place + 1 :]]]}


def test_a_good_answer() -> None:
    report = parse(answer())
    assert report.metrics.cpu_count == 2
    (found,) = report.log_entries(now=200.0)
    assert (found.at, found.logger, found.source) == (100.0, "process", ("ab12", 1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        answer(stream="not/hex&x"),
        answer(stream=""),
        answer(metrics={**USAGE, "mem_used": -1}),
        answer(metrics={**USAGE, "mem_used": 1 << 64}),
        answer(metrics={**USAGE, "mem_used": float("nan")}),
        answer(metrics={**USAGE, "cpu_count": 0}),
        answer(metrics={}),
        answer(entries={}),
        answer(**entry(0, -1)),
        answer(**entry(1, float("nan"))),
        answer(**entry(1, float("inf"))),
        answer(**entry(2, "loud")),
        answer(**entry(3, "x" * 65)),
        answer(**entry(4, "x" * 1025)),
        answer(**entry(5, {"a": 1})),
        answer(**entry(5, {str(n): "" for n in range(17)})),
    ],
)
def test_an_answer_that_is_not_envds(body: bytes) -> None:
    with pytest.raises(GuestUnreachable, match="telemetry is broken"):
        parse(body)


@pytest.mark.parametrize(
    ("told", "kept"), [(1e300, 5e8), (5e8 - 1, 5e8 - 1), (-1e300, 5e8 - 366 * 86400)]
)
def test_a_wrong_clock_is_put_right(told: float, kept: float) -> None:
    (found,) = parse(answer(**entry(1, told))).log_entries(now=5e8)
    assert found.at == kept


def test_a_guest_cannot_speak_as_the_orchestrator() -> None:
    (found,) = parse(answer(**entry(3, "orchestrator"))).log_entries(now=200.0)
    assert found.logger == "guest"
