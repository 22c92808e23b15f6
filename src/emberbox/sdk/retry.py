"""When a refused control-plane request is repeated, and the key that makes it safe. No I/O."""

from __future__ import annotations

import random
import re
import uuid
from typing import TYPE_CHECKING

from .errors import InvalidArgumentException

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 10.0
TOTAL_WITHOUT_TIMEOUT_SECONDS = 60.0
"""All attempts together, when the request itself has no limit."""

_IDEMPOTENCY_KEY = re.compile(r"[a-z0-9-]{1,255}")
_RETRY_AFTER = re.compile(r"[0-9]{1,9}")


def retry_delay(
    status: int,
    headers: Mapping[str, str],
    attempt: int,
    draw: Callable[[], float] = random.random,
) -> float | None:
    """Seconds to wait before attempt number `attempt + 1`; None to give up.

    `Should-Retry` decides alone when present; else the status does. The wait is the
    `Retry-After` seconds, else it doubles from 0.1 to 10 s with half of it random.
    `headers` must compare names without regard to case.
    """
    said = headers.get("Should-Retry")
    wanted = status in RETRYABLE_STATUSES if said is None else said.strip().lower() == "true"
    if not wanted:
        return None
    after = headers.get("Retry-After", "").strip()
    if _RETRY_AFTER.fullmatch(after):
        return float(after)
    backoff = min(BACKOFF_FIRST_SECONDS * 2.0**attempt, BACKOFF_MAX_SECONDS)
    return float(backoff * (0.5 + draw() / 2))


def idempotency_key(given: str | None) -> str:
    """The key under which repeated creates are one create; a fresh one when none is given.

    Raises InvalidArgumentException for a key the protocol does not allow.
    """
    if given is None:
        return str(uuid.uuid4())
    if not isinstance(given, str) or not _IDEMPOTENCY_KEY.fullmatch(given):
        raise InvalidArgumentException(
            f"idempotency_key must be 1-255 lowercase letters, digits or hyphens, got {given!r}"
        )
    return given
