"""The gRPC service of sandboxes, over a host of stand-ins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.service import SandboxService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.orchestrator.sandbox_world import Setting


@pytest.fixture
async def stub(setting: Setting) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    service = SandboxService(setting.sandboxes, setting.outbox, cast("Any", None))
    pb_grpc.add_SandboxServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield pb_grpc.SandboxServiceStub(channel)
    await setting.sandboxes.end_all("test")
    await server.stop(None)


def wanted(sandbox_id: str) -> pb.SandboxCreateRequest:
    config = pb.SandboxConfig(
        sandbox_id=sandbox_id, execution_id="e-1", template_id="t", build_id="b-1"
    )
    request = pb.SandboxCreateRequest(sandbox=config)
    request.end_time.FromSeconds(int(time.time()) + 60)
    return request


async def test_it_tells_how_it_was_made_and_where_the_time_went(stub: Any) -> None:
    made = await stub.Create(wanted("ione"))
    names = ["queue", "slot", "disk", "machine", "init", "route"]
    assert [step.name for step in made.steps] == names
    [listed] = (await stub.List(pb.SandboxListRequest())).sandboxes
    assert listed.way == "clone"
    assert list(listed.steps) == list(made.steps)


async def test_who_would_wait_too_long_is_told_when_to_come_again(
    stub: Any, setting: Setting
) -> None:
    starts = setting.host.starts
    turns = [starts.join("others") for _ in range(4)]
    starts._longest_wait = 0.1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Create(wanted("ione"))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "EMBERBOX_CONCURRENT_STARTS=2" in (refused.value.details() or "")
    assert dict(refused.value.trailing_metadata() or ()) == {"retry-after": "1"}
    assert list(setting.sandboxes) == []
    for turn in turns:
        starts.leave(turn)
