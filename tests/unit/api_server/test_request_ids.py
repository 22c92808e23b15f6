"""One request is one name in every log, one sample in the metrics, and one trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from emberbox.shared.protocol import GRPC_REQUEST_ID_KEY
from tests.spans import recorded

from .harness import World, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded() as exporter:
        yield exporter


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_given_request_id_comes_back_and_goes_to_the_host(world: World) -> None:
    answer = await world.http.post(
        "/v2/sandboxes", json={"templateID": "base"}, headers={"X-Request-Id": "mine-1"}
    )
    assert answer.status_code == 201
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert world.host.metadata["create"][GRPC_REQUEST_ID_KEY] == "mine-1"
    (created, *_) = await world.store.events.page(limit=10, oldest_first=True)
    assert created.request_id == "mine-1"


async def test_each_answer_has_an_id_errors_included(world: World) -> None:
    first = await world.http.get("/sandboxes/inobody", headers={"X-Request-Id": "no good"})
    second = await world.http.get("/sandboxes/inobody")
    assert first.status_code == second.status_code == 404
    ids = {answer.headers["X-Request-Id"] for answer in (first, second)}
    assert len(ids) == 2
    assert all(len(one) == 32 for one in ids)


async def test_requests_are_counted_by_their_pattern(world: World) -> None:
    labels = {"method": "GET", "route": "/sandboxes/{sandbox_id}", "status": "404"}
    before = sample("emberbox_api_requests_total", **labels)
    for sandbox_id in ("ione", "itwo"):
        await world.http.get(f"/sandboxes/{sandbox_id}")
    assert sample("emberbox_api_requests_total", **labels) == before + 2


async def test_calls_to_hosts_are_timed_by_status(world: World) -> None:
    name = "emberbox_api_host_call_duration_seconds_count"
    ok = sample(name, call="SandboxCreate", code="OK")
    full = sample(name, call="SandboxCreate", code="RESOURCE_EXHAUSTED")
    await world.created()
    world.host.capacity = 0
    assert (await world.create()).status_code == 503
    assert sample(name, call="SandboxCreate", code="OK") == ok + 1
    assert sample(name, call="SandboxCreate", code="RESOURCE_EXHAUSTED") == full + 1


async def test_live_records_are_counted_by_state(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    await world.services.reconciler.tidy()
    assert sample("emberbox_api_sandboxes", state="running") == 1
    await world.http.delete(f"/sandboxes/{sandbox_id}")
    await world.services.reconciler.tidy()
    assert sample("emberbox_api_sandboxes", state="running") == 0


async def test_a_trace_goes_from_the_client_to_the_host(
    world: World, spans: InMemorySpanExporter
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await world.http.post(
        "/v2/sandboxes",
        json={"templateID": "base"},
        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
    )
    assert answer.status_code == 201
    sent = world.host.metadata["create"]["traceparent"]
    assert sent.split("-")[1] == trace

    async def exported() -> bool:
        return "api" in {span.name for span in spans.get_finished_spans()}

    await eventually(exported)
    call = next(s for s in spans.get_finished_spans() if s.name == "call SandboxCreate")
    assert call.context is not None
    assert f"{call.context.span_id:016x}" == sent.split("-")[2]


async def test_no_key_is_logged(world: World) -> None:
    with capture_logs() as logged:
        await world.created()
        await world.http.get("/nowhere")
    assert len(logged) >= 2
    assert world.key not in repr(logged)
