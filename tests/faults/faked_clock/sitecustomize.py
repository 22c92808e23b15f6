"""For programs under libfaketime: Debian 12's has `clock_nanosleep` fail where the monotonic clock
is left alone, and Python sleeps by that."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
