from __future__ import annotations

import httpx2
import pytest

from emberbox import InvalidArgumentException
from emberbox.sdk.retry import idempotency_key, retry_delay


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {}, 0.05),
        (502, {}, 0.05),
        (503, {}, 0.05),
        (504, {}, 0.05),
        (500, {}, None),
        (201, {}, None),
        (503, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.05),
        (503, {"Should-Retry": "false"}, None),
        (500, {"Should-Retry": "true", "Retry-After": "2"}, 2.0),
        (429, {"should-retry": " TRUE "}, 0.05),
    ],
)
def test_delay(status: int, headers: dict[str, str], expected: float | None) -> None:
    assert retry_delay(status, httpx2.Headers(headers), 0, draw=lambda: 0.0) == expected


def test_backoff_doubles_up_to_ten_seconds() -> None:
    delays = [retry_delay(503, httpx2.Headers(), n, draw=lambda: 1.0) for n in (0, 1, 2, 20)]
    assert delays == [0.1, 0.2, 0.4, 10.0]


def test_idempotency_keys() -> None:
    assert idempotency_key("abc-1") == "abc-1"
    assert idempotency_key(None) != idempotency_key(None)
    for bad in ("", "A", "a_b", "a" * 256):
        with pytest.raises(InvalidArgumentException):
            idempotency_key(bad)
