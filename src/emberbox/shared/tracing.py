"""OpenTelemetry traces across the programs. They are an extra: nothing is imported and nothing
is measured unless OTEL_EXPORTER_OTLP_ENDPOINT says where traces go.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""The variable of OpenTelemetry itself; its others are obeyed as well."""

_CARRIED = frozenset({"traceparent", "tracestate"})
"""Names of the W3C's trace context, in HTTP as in gRPC."""

_tracer: Tracer | None = None


def configure(program: str) -> None:
    """Send traces, when there is an endpoint. Raises StartupError when the extra is missing."""
    if not os.environ.get(ENDPOINT):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise StartupError(
            f"{ENDPOINT} is set and {error.name} is missing: install 'emberbox[server,tracing]', "
            f"or unset {ENDPOINT}"
        ) from error
    use(program, BatchSpanProcessor(OTLPSpanExporter()))


def use(program: str, processor: SpanProcessor) -> None:
    """Hand every span of this program to `processor`."""
    global _tracer  # noqa: PLW0603 - one for the whole program, like logging
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the extra

    provider = TracerProvider(resource=Resource.create({"service.name": f"emberbox-{program}"}))
    provider.add_span_processor(processor)
    _tracer = provider.get_tracer("emberbox")


def off() -> None:
    """Measure nothing any more."""
    global _tracer  # noqa: PLW0603 - as above
    _tracer = None


def span(name: str, **attributes: str) -> AbstractContextManager[Any]:
    """A part of what is going on, for the length of a block."""
    if _tracer is None:
        return nullcontext()
    return _tracer.start_as_current_span(name, attributes=attributes)


def continued(name: str, carried: Iterable[tuple[str, str | bytes]]) -> AbstractContextManager[Any]:
    """The same for work that another program asked for: `carried` are the headers, or the
    metadata, of its call."""
    if _tracer is None:
        return nullcontext()
    from opentelemetry.propagate import extract  # noqa: PLC0415 - the extra

    carrier = {key.lower(): value for key, value in carried if isinstance(value, str)}
    return _tracer.start_as_current_span(name, context=extract(carrier))


def to_carry() -> Mapping[str, str]:
    """What a call takes along, so that the other program goes on with this trace."""
    if _tracer is None:
        return {}
    from opentelemetry.propagate import inject  # noqa: PLC0415 - the extra

    carrier: dict[str, str] = {}
    inject(carrier)
    return {key: value for key, value in carrier.items() if key in _CARRIED}
