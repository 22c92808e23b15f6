"""Names of requests."""

from __future__ import annotations

import asyncio

import pytest
from structlog.contextvars import bound_contextvars

from emberbox.shared import correlation


@pytest.mark.parametrize("given", ["a", "Req-1.2_3", "x" * 64])
def test_what_can_stand_in_a_log_is_taken(given: str) -> None:
    assert correlation.request_id_from(given) == given
    assert correlation.request_id_from(given.encode()) == given


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "a\nb", "\x1b[31m", b"\xff\xfe"])
def test_anything_else_is_replaced(given: str | bytes | None) -> None:
    first, second = correlation.request_id_from(given), correlation.request_id_from(given)
    assert len(first) == 32
    assert first != second


async def test_what_a_request_starts_keeps_its_name_and_what_outlives_it_does_not() -> None:
    async def name() -> str:
        return correlation.current_request_id()

    with bound_contextvars(request_id="one"):
        assert await asyncio.create_task(name()) == "one"
        assert await asyncio.create_task(name(), context=correlation.without_request()) == ""
        assert correlation.current_request_id() == "one"
    assert correlation.current_request_id() == ""
