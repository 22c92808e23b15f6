"""The host names requests and sandboxes in its log, and counts what it does."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
import structlog
from prometheus_client import REGISTRY, generate_latest
from structlog.testing import capture_logs

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.host_metrics import HostCollector, collecting
from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested
from emberbox.orchestrator.service import SandboxService
from emberbox.shared.grpc_secret import RequireSecret
from emberbox.shared.protocol import GRPC_REQUEST_ID_KEY, GRPC_SECRET_KEY
from tests.spans import recorded
from tests.unit.orchestrator.sandbox_world import ended, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import Any

    from tests.unit.orchestrator.sandbox_world import Setting

SECRET = "secret"


@pytest.fixture
async def stub(setting: Setting) -> AsyncIterator[Any]:
    """The service over real gRPC."""
    server = grpc.aio.server(interceptors=[RequireSecret(SECRET)])
    service = SandboxService(setting.sandboxes, setting.outbox, telemetry=None)  # type: ignore[arg-type]
    pb_grpc.add_SandboxServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield pb_grpc.SandboxServiceStub(channel)
    await setting.sandboxes.end_all("test")
    await server.stop(None)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What the program logs."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        yield entries


def config(execution_id: str = "e-1") -> pb.SandboxCreateRequest:
    sandbox = pb.SandboxConfig(
        sandbox_id="iabc", template_id="t", build_id="b-1", execution_id=execution_id
    )
    made = pb.SandboxCreateRequest(sandbox=sandbox)
    made.end_time.FromSeconds(4_000_000_000)
    return made


def metadata(request_id: str) -> list[tuple[str, str]]:
    return [(GRPC_SECRET_KEY, SECRET), (GRPC_REQUEST_ID_KEY, request_id)]


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"emberbox_orchestrator_{name}", labels) or 0.0


async def test_a_failed_start_is_logged_with_the_request_and_the_sandbox(
    setting: Setting, stub: Any, logged: list[Any]
) -> None:
    setting.world.fails_at = "machine"
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Create(config(), metadata=metadata("request-1"))
    lines = [line for line in logged if line.get("sandbox_id") == "iabc"]
    assert {line["event"] for line in lines} >= {"start failed", "call refused"}
    assert {line["request_id"] for line in lines} == {"request-1"}


async def test_an_end_names_the_request_that_wanted_it_and_a_crash_names_none(
    setting: Setting, stub: Any, logged: list[Any]
) -> None:
    await stub.Create(config(), metadata=metadata("create-1"))
    await stub.Delete(pb.SandboxDeleteRequest(sandbox_id="iabc"), metadata=metadata("kill-1"))
    (end,) = [line for line in logged if line["event"] == "ended"]
    assert (end["sandbox_id"], end["request_id"]) == ("iabc", "kill-1")
    await stub.Create(config("e-2"), metadata=metadata("create-2"))
    assert setting.world.machine
    setting.world.machine.ended.set_result("it died")
    await ended(setting)
    _, end = [line for line in logged if line["event"] == "ended"]
    assert end["sandbox_id"] == "iabc"
    assert "request_id" not in end


async def test_steps_operations_calls_and_ends_are_counted(setting: Setting, stub: Any) -> None:
    watched: list[tuple[str, dict[str, str]]] = [
        ("step_duration_seconds_count", {"operation": "create", "step": "machine"}),
        ("step_duration_seconds_count", {"operation": "create", "step": "init"}),
        ("operation_duration_seconds_count", {"operation": "create", "result": "ok"}),
        ("operation_duration_seconds_count", {"operation": "create", "result": "failed"}),
        ("operation_duration_seconds_count", {"operation": "pause", "result": "ok"}),
        ("operation_duration_seconds_count", {"operation": "resume", "result": "ok"}),
        ("step_duration_seconds_count", {"operation": "pause", "step": "memory"}),
        ("call_duration_seconds_count", {"call": "Create", "code": "INTERNAL"}),
        ("sandbox_ends_total", {"outcome": "paused"}),
    ]
    before = [count(name, **labels) for name, labels in watched]
    setting.world.fails_at = "machine"
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Create(config(), metadata=metadata("a"))
    await stub.Create(config(), metadata=metadata("b"))
    await setting.sandboxes.pause("iabc", "e-1", PauseRequested("asked"))
    again = config("e-2")
    again.sandbox.snapshot = True
    await stub.Create(again, metadata=metadata("c"))
    grown = [count(name, **labels) for name, labels in watched]
    assert [after - b for after, b in zip(grown, before, strict=True)] == [
        2, 1, 1, 1, 1, 1, 1, 1, 1,
    ]  # fmt: skip
    assert count("outbox_entries") == 1


async def test_what_a_host_has_is_read_when_somebody_asks(setting: Setting) -> None:
    class Slots:
        ready = 3

    await setting.sandboxes.create(request())
    collector = HostCollector(setting.sandboxes, Slots(), setting.host.directories.root)  # type: ignore[arg-type]
    with collecting(collector):
        texts: list[str] = []
        reader = threading.Thread(target=lambda: texts.append(generate_latest().decode()))
        reader.start()
        reader.join()
        assert 'emberbox_orchestrator_sandboxes{state="running"} 1.0' in texts[0]
        assert "emberbox_orchestrator_slots_ready 3.0" in texts[0]
        assert "emberbox_orchestrator_disk_available_bytes" in texts[0]
    assert "emberbox_orchestrator_slots_ready" not in generate_latest().decode()
    await setting.sandboxes.end_all("test")


async def test_the_steps_of_a_create_are_parts_of_its_callers_trace(
    setting: Setting, stub: Any
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    carried = ("traceparent", f"00-{trace}-b7ad6b7169203331-01")
    with recorded() as exporter:
        await stub.Create(config(), metadata=[*metadata("a"), carried])
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"create: slot", "create: machine", "create: init", "create: route"} <= set(spans)
    ids = {f"{s.context.trace_id:032x}" for s in spans.values() if s.context is not None}
    assert ids == {trace}


def test_a_panic_is_told_before_the_console() -> None:
    console = "".join(f"line {n}\n" for n in range(40)) + (
        "[ 9.1] Kernel panic - not syncing: System is deadlocked on memory\r\n[ 9.2] CPU: 0\n"
    )
    told = MachineError("the guest ended: it rebooted, or its kernel gave up", console).explain()
    first, head, *tail = told.split("\n")
    assert first == (
        "the guest ended: it rebooted, or its kernel gave up: "
        "kernel panic: System is deadlocked on memory"
    )
    assert head == "console:"
    assert len(tail) == 20
    assert "x" * 300 not in MachineError("x", "y" * 70_000).explain()
    assert len(MachineError("it ended", "y" * 70_000).explain()) < 400
