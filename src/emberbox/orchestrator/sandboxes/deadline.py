"""The moment at which a sandbox is over."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from emberbox.shared import correlation

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_NAP = 30.0
"""Seconds after which a deadline is compared with the clock again."""


class Deadline:
    """Calls `passed` when the clock has passed a moment, as often as it is armed."""

    def __init__(self, passed: Callable[[], None]) -> None:
        self._passed = passed
        self._end_time = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, end_time: float, at_least: float = 0.0) -> None:
        """At `end_time` in unix seconds and not before `at_least` seconds from now; it takes the
        place of what was armed before."""
        self.disarm()
        self._end_time = end_time
        wait = max(at_least, end_time - time.time())
        # The timer is monotonic and the deadline is not: the clock may be set meanwhile.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            min(wait, _LONGEST_NAP), self._look, context=correlation.without_request()
        )

    def disarm(self) -> None:
        """Not any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if time.time() < self._end_time:
            self.arm(self._end_time)
        else:
            self._passed()
