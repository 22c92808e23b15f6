"""How long each step of a create, a resume or a pause took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Steps:
    """Named durations, in milliseconds, in the order they ended. Some go on at the same time."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the block, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.taken.append((name, (time.perf_counter() - start) * 1000))

    def reached(self, name: str) -> None:
        """Note how long it took from the beginning to this moment."""
        self.taken.append((name, (time.perf_counter() - self._began) * 1000))
