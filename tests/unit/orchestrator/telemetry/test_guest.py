"""What a guest answers is not believed."""

from __future__ import annotations

from typing import Any

import pytest

from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.telemetry.guest import parse

from .standin import ANSWERED_ENTRY, ANSWERED_USAGE, answer


def entry(place: int, value: object) -> dict[str, Any]:
    return {"entries": [[*ANSWERED_ENTRY[:place], value, *ANSWERED_ENTRY[place + 1 :]]]}


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
        answer(metrics={**ANSWERED_USAGE, "mem_used": -1}),
        answer(metrics={**ANSWERED_USAGE, "mem_used": 1 << 64}),
        answer(metrics={**ANSWERED_USAGE, "mem_used": float("nan")}),
        answer(metrics={**ANSWERED_USAGE, "cpu_count": 0}),
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


def test_a_guest_does_not_steer_the_terminals_of_readers() -> None:
    steering = {"entries": [[1, 100.0, "info", "process", "a\x1b[2Jb\tc\n", {"\x9b": "\x07"}]]}
    (found,) = parse(answer(**steering)).log_entries(now=200.0)
    assert found.message == "a\ufffd[2Jb\tc\n"
    assert found.fields == {"\ufffd": "\ufffd"}
