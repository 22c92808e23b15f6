"""Traces: nothing unless asked for, and one trace across programs when they are."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from emberbox.shared import tracing
from emberbox.shared.errors import StartupError
from tests.spans import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded() as exporter:
        yield exporter


def test_without_an_endpoint_nothing_is_imported_or_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracing.ENDPOINT, raising=False)
    program = (
        "import sys\n"
        "from emberbox.shared import tracing\n"
        "tracing.configure('x')\n"
        "with tracing.continued('a', []), tracing.span('b'):\n"
        "    assert tracing.to_carry() == {}\n"
        "assert 'opentelemetry' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_endpoint_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(StartupError, match=r"install 'emberbox\[server,tracing\]'"):
        tracing.configure("x")


def test_one_trace_goes_on_in_the_next_program(spans: InMemorySpanExporter) -> None:
    with tracing.span("first", about="a sandbox"):
        carried = tracing.to_carry()
    with tracing.continued("second", carried.items()), tracing.span("part"):
        pass
    first, part, second = spans.get_finished_spans()
    assert set(carried) == {"traceparent"}
    assert first.context is not None
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id
    assert part.context is not None
    assert part.context.trace_id == first.context.trace_id


def test_a_call_without_a_trace_begins_one(spans: InMemorySpanExporter) -> None:
    with tracing.continued("alone", [("TraceParent", "rubbish"), ("x", b"\xff")]):
        pass
    (span,) = spans.get_finished_spans()
    assert span.parent is None
