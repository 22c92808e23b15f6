"""Spans of a program, kept in memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from emberbox.shared import tracing

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def recorded() -> Iterator[InMemorySpanExporter]:
    """Traces are on while the block runs."""
    exporter = InMemorySpanExporter()
    tracing.use("test", SimpleSpanProcessor(exporter))
    try:
        yield exporter
    finally:
        tracing.off()
