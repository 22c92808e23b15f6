"""How long each step of a create, a resume or a pause took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from emberbox.orchestrator import metrics
from emberbox.shared import tracing

if TYPE_CHECKING:
    from collections.abc import Iterator


class Steps:
    """Named durations, in milliseconds, in the order they were measured; told to Prometheus and
    to traces as steps of `operation`."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.taken: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Time all of it: the block holds the steps."""
        with metrics.operation(self.operation):
            yield

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the block, also when it fails."""
        start = time.perf_counter()
        try:
            with tracing.span(f"{self.operation}: {name}"):
                yield
        finally:
            seconds = time.perf_counter() - start
            self.taken.append((name, seconds * 1000))
            metrics.observe_step(self.operation, name, seconds)
