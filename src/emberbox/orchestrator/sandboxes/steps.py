"""Steps of what is done to a sandbox, as Prometheus and traces have them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from emberbox.orchestrator import metrics
from emberbox.shared import tracing
from emberbox.shared.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator


class OperationSteps(Steps):
    """Steps of one `operation`: create, resume or pause."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self._operation = operation

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Time all of it: the block holds the steps."""
        with metrics.operation(self._operation):
            yield

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the block, also when it fails."""
        try:
            with super().measure(name), tracing.span(f"{self._operation}: {name}"):
                yield
        finally:
            metrics.observe_step(self._operation, name, self.taken[-1][1] / 1000)
