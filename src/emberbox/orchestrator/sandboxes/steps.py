"""How long each step of a create took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Steps:
    """Named durations, in milliseconds, in the order they were measured."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []

    def rounded(self) -> dict[str, float]:
        """For people."""
        return {name: round(milliseconds, 1) for name, milliseconds in self.taken}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the block, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.taken.append((name, (time.perf_counter() - start) * 1000))
