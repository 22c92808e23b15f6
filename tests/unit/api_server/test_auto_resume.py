"""The decision whether traffic resumes a sandbox, over the internal gRPC port."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from emberbox._gen.emberbox.api.v1 import api_pb2 as pb
from emberbox._gen.emberbox.api.v1 import api_pb2_grpc as pb_grpc
from emberbox.api_server.internal_service import InternalServer
from emberbox.shared.errors import StartupError
from emberbox.shared.protocol import ENVD_PORT, GRPC_SECRET_KEY

from .harness import World, paused
from .standin import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Resume = Callable[..., Awaitable[pb.ResumeSandboxResponse]]

ON = {"autoPause": True, "autoResume": {"enabled": True}}


@asynccontextmanager
async def calling(world: World, secret: str = SECRET) -> AsyncIterator[Resume]:
    """Calls of a proxy to the server of `world`."""
    server = InternalServer(world.services.auto_resumer, world.services.nodes, SECRET)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.ResumeServiceStub(channel)

        async def resume(sandbox_id: str, port: int = 8000, **tokens: str) -> object:
            request = pb.ResumeSandboxRequest(sandbox_id=sandbox_id, port=port, **tokens)
            return await stub.ResumeSandbox(request, metadata=((GRPC_SECRET_KEY, secret),))

        try:
            yield resume  # type: ignore[misc]
        finally:
            await server.close()


@pytest.fixture
async def resume(world: World) -> AsyncIterator[Resume]:
    async with calling(world) as made:
        yield made


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize(("timeout", "life"), [(20, 300), (1000, 1000)])
async def test_it_runs_afterwards(world: World, resume: Resume, timeout: int, life: int) -> None:
    sandbox_id = await paused(world, **ON, timeout=timeout)
    answer = await resume(sandbox_id)
    row = await world.row(sandbox_id)
    assert row.state == "running"
    assert row.end_at - row.started_at == timedelta(seconds=life)
    assert answer == pb.ResumeSandboxResponse(
        node_id="node-1",
        execution_id=row.execution_id,
        orchestrator_address=world.host.address,
        data_address=world.host.data_address,
    )


async def test_the_teams_longest_life_holds(world: World, resume: Resume) -> None:
    sandbox_id = await paused(world, **ON, timeout=7200)
    await world.limit(max_length_hours=1)
    await resume(sandbox_id)
    row = await world.row(sandbox_id)
    assert row.end_at - row.started_at == timedelta(hours=1)


async def test_one_that_runs(world: World, resume: Resume) -> None:
    sandbox_id = await world.created()
    answer = await resume(sandbox_id)
    assert answer.execution_id == (await world.row(sandbox_id)).execution_id
    assert world.host.calls == ["create"]


async def test_one_whose_pause_nobody_has_told_yet(world: World, resume: Resume) -> None:
    sandbox_id = await world.created(**ON)
    await world.becomes(sandbox_id, "running")
    world.host.keep(world.host.sandboxes.pop(sandbox_id))
    await resume(sandbox_id)
    assert sandbox_id in world.host.sandboxes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"autoPause": True},
        {"autoPause": True, "autoResume": {"enabled": False}},
    ],
)
async def test_one_that_traffic_does_not_resume(
    world: World, resume: Resume, options: dict[str, object]
) -> None:
    sandbox_id = await paused(world, **options)
    code, _ = await refused(resume(sandbox_id))
    assert code is grpc.StatusCode.NOT_FOUND
    assert (await world.row(sandbox_id)).state == "paused"


async def test_one_of_which_only_files_are_left(world: World, resume: Resume) -> None:
    sandbox_id = await world.created(**ON)
    await world.http.post(f"/sandboxes/{sandbox_id}/pause", json={"memory": False})
    assert (await refused(resume(sandbox_id)))[0] is grpc.StatusCode.NOT_FOUND


async def test_what_is_not_there(world: World, resume: Resume) -> None:
    assert (await refused(resume("inotthere")))[0] is grpc.StatusCode.NOT_FOUND
    sandbox_id = await paused(world, **ON)
    await world.http.delete(f"/sandboxes/{sandbox_id}")
    assert (await refused(resume(sandbox_id)))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("port", "name", "field"),
    [
        (8000, "traffic_access_token", "trafficAccessToken"),
        (ENVD_PORT, "envd_access_token", "envdAccessToken"),
    ],
)
async def test_a_private_one_asks_for_the_token_of_the_port(
    world: World, resume: Resume, port: int, name: str, field: str
) -> None:
    created = (await world.create(**ON, network={"allowPublicTraffic": False})).json()
    sandbox_id = created["sandboxID"]
    await world.http.post(f"/sandboxes/{sandbox_id}/pause")
    other = {"trafficAccessToken", "envdAccessToken"} - {field}
    for token in ("", "wrong", created[other.pop()]):
        code, message = await refused(resume(sandbox_id, port, **{name: token}))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert message == (
            "This sandbox can't be resumed with the credentials provided. "
            "Check your access token and try again."
        )
    assert (await world.row(sandbox_id)).state == "paused"
    await resume(sandbox_id, port, **{name: created[field]})
    assert (await world.row(sandbox_id)).state == "running"


async def test_a_public_one_asks_for_none(world: World, resume: Resume) -> None:
    sandbox_id = await paused(world, **ON)
    await resume(sandbox_id, ENVD_PORT)
    assert (await world.row(sandbox_id)).state == "running"


async def test_a_team_at_its_limit(world: World, resume: Resume) -> None:
    sandbox_id = await paused(world, **ON)
    await world.limit(concurrent_sandboxes=0)
    code, message = await refused(resume(sandbox_id))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "maximum number of concurrent sandboxes" in message


async def test_a_host_without_room(world: World, resume: Resume) -> None:
    sandbox_id = await paused(world, **ON)
    world.host.capacity = 0
    code, message = await refused(resume(sandbox_id))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "no memory left" in message


async def test_requests_at_once_share_one_resume(world: World, resume: Resume) -> None:
    sandbox_id = await paused(world, **ON)
    answers = await asyncio.gather(*(resume(sandbox_id) for _ in range(10)))
    assert len({answer.execution_id for answer in answers}) == 1
    runs = {request.sandbox.execution_id for request in world.host.creates}
    assert len(runs) == 2


async def test_while_it_is_being_paused(world: World, resume: Resume) -> None:
    sandbox_id = await world.created(**ON)
    world.host.hold_pause = asyncio.Event()
    pausing = asyncio.create_task(world.http.post(f"/sandboxes/{sandbox_id}/pause"))
    await world.host.pause_began.wait()
    resuming = asyncio.ensure_future(resume(sandbox_id))
    world.host.hold_pause.set()
    assert (await pausing).status_code == 204
    await resuming
    assert (await world.row(sandbox_id)).state == "running"


async def test_the_secret(world: World) -> None:
    async with calling(world, "wrong") as resume:
        code, message = await refused(resume("inotthere"))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "EMBERBOX_INTERNAL_SECRET_FILE" in message


async def test_a_port_that_is_taken(world: World) -> None:
    services = world.services
    first = InternalServer(services.auto_resumer, services.nodes, SECRET)
    port = await first.start("127.0.0.1", 0)
    second = InternalServer(services.auto_resumer, services.nodes, SECRET)
    with pytest.raises(StartupError, match="EMBERBOX_API_INTERNAL_PORT"):
        await second.start("127.0.0.1", port)
    await first.close()
