"""The gRPC calls: what is refused, and with which status."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.service import SandboxService

from .standin import SELDOM, World, messages, record, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def service(world: World) -> AsyncIterator[Any]:
    """A client of a server over one sandbox, which was sampled."""
    world.guest().entries = ["first", "second"]
    async with world.program(SELDOM) as telemetry:
        await telemetry.begin(record())
        await until(lambda: telemetry.latest(["iabc"]) != {})
        await messages(telemetry)
        nothing = cast("Any", None)
        server = grpc.aio.server()
        pb_grpc.add_SandboxServiceServicer_to_server(
            SandboxService(nothing, nothing, telemetry), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield pb_grpc.SandboxServiceStub(channel)
        await server.stop(None)


async def test_what_is_there(tmp_path: Path) -> None:
    async with service(World(tmp_path / "telemetry")) as stub:
        (sample,) = (await stub.Metrics(pb.SandboxMetricsRequest(sandbox_id="iabc"))).samples
        assert (sample.cpu_count, sample.cpu_used_percent) == (2, 50)
        latest = await stub.LatestMetrics(pb.SandboxLatestMetricsRequest(sandbox_ids=["iabc", "i"]))
        assert dict(latest.samples) == {"iabc": sample}
        old = pb.SandboxMetricsRequest(sandbox_id="iabc", start=0, end=0)
        assert list((await stub.Metrics(old)).samples) == []
        query = pb.SandboxLogsRequest(sandbox_id="iabc", limit=2, newest_first=True)
        logs = (await stub.Logs(query)).entries
        assert [(entry.logger, entry.message) for entry in logs] == [
            ("process", "second"),
            ("process", "first"),
        ]


@pytest.mark.parametrize(
    ("method", "request_", "status"),
    [
        ("Metrics", pb.SandboxMetricsRequest(sandbox_id="inone"), "NOT_FOUND"),
        ("Metrics", pb.SandboxMetricsRequest(sandbox_id=".."), "NOT_FOUND"),
        (
            "Metrics",
            pb.SandboxMetricsRequest(sandbox_id="iabc", start=2, end=1),
            "INVALID_ARGUMENT",
        ),
        ("Logs", pb.SandboxLogsRequest(sandbox_id="inone"), "NOT_FOUND"),
        ("Logs", pb.SandboxLogsRequest(sandbox_id="iabc", level="loud"), "INVALID_ARGUMENT"),
    ],
)
async def test_what_is_not(tmp_path: Path, method: str, request_: object, status: str) -> None:
    async with service(World(tmp_path / "telemetry")) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub, method)(request_)
    assert caught.value.code().name == status
