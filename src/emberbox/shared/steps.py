"""How long each step of something took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Steps:
    """Named durations, in milliseconds, in the order they were measured."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []
        self._began = time.perf_counter()

    @property
    def total(self) -> float:
        """Since they were begun, with what lies between the steps."""
        return (time.perf_counter() - self._began) * 1000

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the block, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.taken.append((name, (time.perf_counter() - start) * 1000))

    def add(self, within: str, steps: Iterable[tuple[str, float]]) -> None:
        """Steps that were measured elsewhere, as parts of the step `within`."""
        self.taken += [(f"{within}.{name}", milliseconds) for name, milliseconds in steps]

    def rounded(self) -> dict[str, float]:
        """For people."""
        return {name: round(milliseconds, 1) for name, milliseconds in self.taken}

    def server_timing(self) -> str:
        """The value of an HTTP header `Server-Timing`; names are tokens (RFC 9110, 5.6.2)."""
        steps = [*self.taken, ("total", self.total)]
        return ", ".join(f"{name};dur={milliseconds:.1f}" for name, milliseconds in steps)
