"""Several hosts: how they are found, chosen, left out, and looked after by one server at a time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import grpc
import grpc.aio
import pytest

from emberbox._gen.emberbox.api.v1 import api_pb2 as pb
from emberbox._gen.emberbox.api.v1 import api_pb2_grpc as pb_grpc
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as host_pb
from emberbox.api_server.forgetting import forget_node
from emberbox.api_server.internal_service import InternalServer
from emberbox.shared.protocol import GRPC_SECRET_KEY

from .harness import World, eventually, paused, running, settings_for
from .standin import SECRET, Standin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .databases import Databases


class Beat(Protocol):
    """Lets a host say that it is there."""

    async def __call__(self, host: Standin, secret: str = SECRET) -> pb.HeartbeatResponse: ...


@pytest.fixture
async def hosts(database: Databases) -> AsyncIterator[list[Standin]]:
    """Three that serve; each has its own build of the template."""
    made = [Standin(node_id=f"node-{n}") for n in range(3)]
    for n, one in enumerate(made):
        one.templates[0].build_id = f"build-of-{n}"
        await one.start()
    yield made
    for one in made:
        await one.stop()


@pytest.fixture
async def cluster(tmp_path: Path, hosts: list[Standin]) -> AsyncIterator[World]:
    """A server with an empty list, and hosts that have said that they are there."""
    async with running(settings_for(tmp_path), hosts[0]) as world:
        async with internal(world) as beat:
            for host in hosts:
                await beat(host)
        await world.services.nodes.refresh()
        yield world


@asynccontextmanager
async def internal(world: World) -> AsyncIterator[Beat]:
    """The internal port of a server; what is given says that a host is there."""
    services = world.services
    server = InternalServer(services.auto_resumer, services.nodes, SECRET)
    port = await server.start("127.0.0.1", 0)

    async def beat(host: Standin, secret: str = SECRET) -> pb.HeartbeatResponse:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = pb_grpc.NodeServiceStub(channel)
            request = pb.HeartbeatRequest(info=host.info())
            answer: pb.HeartbeatResponse = await stub.Heartbeat(
                request, metadata=((GRPC_SECRET_KEY, secret),)
            )
            return answer

    yield beat
    await server.close()


async def silence(world: World, host: Standin) -> None:
    """Let the last word of a host be 31 seconds old."""
    record = await world.services.nodes.heard(host.info())
    await world.store.nodes.put(replace(record, seen_at=record.seen_at - timedelta(seconds=31)))
    await world.services.nodes.refresh()


async def test_hosts_that_say_they_are_there_are_used(cluster: World, hosts: list[Standin]) -> None:
    for _ in range(9):
        await cluster.created()
    assert [len(host.sandboxes) for host in hosts] == [3, 3, 3]
    for n, host in enumerate(hosts):
        assert {one.build_id for one in host.sandboxes.values()} == {f"build-of-{n}"}
        rows = await cluster.store.sandboxes.live_on(host.node_id)
        assert {row.build_id for row in rows} == {f"build-of-{n}"}


async def test_a_wrong_secret_is_no_host(cluster: World, hosts: list[Standin]) -> None:
    async with internal(cluster) as beat:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await beat(hosts[0], "wrong")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_two_hosts_of_one_id(cluster: World, hosts: list[Standin]) -> None:
    hosts[1].node_id = hosts[0].node_id
    async with internal(cluster) as beat:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await beat(hosts[1])
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "set EMBERBOX_NODE_ID" in (refused.value.details() or "")
        await silence(cluster, hosts[0])
        await beat(hosts[1])


async def test_an_address_of_the_list_goes_before_what_a_host_says(
    tmp_path: Path, hosts: list[Standin]
) -> None:
    async with running(settings_for(tmp_path, hosts[0]), hosts[0]) as world:
        said = hosts[0].info()
        said.address = "its-own-name:8080"
        await world.services.nodes.heard(said)
        await world.created()
        (record,) = await world.store.nodes.all()
        assert record.address == hosts[0].address
        await world.services.nodes.heard(said)
        (record,) = await world.store.nodes.all()
        assert record.address == hosts[0].address


async def test_draining_and_silent_hosts_are_left_out(cluster: World, hosts: list[Standin]) -> None:
    assert await cluster.store.nodes.set_draining("node-0", draining=True)
    async with internal(cluster) as beat:
        assert (await beat(hosts[0])).draining
    await silence(cluster, hosts[1])
    for _ in range(4):
        await cluster.created()
    assert [len(host.sandboxes) for host in hosts] == [0, 0, 4]
    hosts[2].fail_create = (grpc.StatusCode.RESOURCE_EXHAUSTED, "its disk is full")
    refused = await cluster.create()
    assert (refused.status_code, refused.json()["error_code"]) == (
        503,
        "sandbox_capacity_unavailable",
    )
    message = refused.json()["message"]
    assert message.startswith(
        "Failed to place sandbox: node-0: it is draining; node-1: nothing was"
    )
    assert message.endswith("node-2: its disk is full")


async def test_a_host_that_is_gone_costs_one_try(cluster: World, hosts: list[Standin]) -> None:
    await hosts[0].stop()
    for _ in range(4):
        await cluster.created()
    assert [len(host.sandboxes) for host in hosts] == [0, 2, 2]


async def test_a_vm_that_fails_is_tried_elsewhere(cluster: World, hosts: list[Standin]) -> None:
    for host in hosts[:2]:
        host.fail_create = (grpc.StatusCode.INTERNAL, "the VM did not come up")
    for _ in range(3):
        row = await cluster.row(await cluster.created())
        assert (row.node_id, row.build_id) == ("node-2", "build-of-2")
    hosts[2].fail_create = hosts[0].fail_create
    refused = await cluster.create()
    assert (refused.status_code, refused.json()["error_code"]) == (500, "sandbox_create_failed")

    async def nothing_is_counted() -> bool:
        # Whether the last host has made it is not known until it was asked to end it.
        return await cluster.store.sandboxes.counted_elsewhere(["node-2"]) == []

    await eventually(nothing_is_counted)


async def test_labels_of_a_team(cluster: World, hosts: list[Standin]) -> None:
    hosts[1].labels = {"zone": "b", "disk": "nvme"}
    async with internal(cluster) as beat:
        await beat(hosts[1])
    await cluster.services.nodes.refresh()
    team = await cluster.store.teams.find("default")
    assert team is not None
    await cluster.store.teams.set_node_labels(team.team_id, {"zone": "b"})
    cluster.services.authenticator._remembered.clear()
    for _ in range(3):
        await cluster.created()
    assert [len(host.sandboxes) for host in hosts] == [0, 3, 0]
    await cluster.store.teams.set_node_labels(team.team_id, {"zone": "c"})
    cluster.services.authenticator._remembered.clear()
    refused = await cluster.create()
    assert refused.json()["error_code"] == "sandbox_no_compatible_node"
    assert "it has not the labels zone=c" in refused.json()["message"]


async def test_a_burst_over_several_servers_overfills_no_host(
    tmp_path: Path, hosts: list[Standin]
) -> None:
    for host in hosts:
        host.max_sandboxes = 2
    settings = settings_for(tmp_path, *hosts)
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(running(settings, hosts[0])) for _ in range(3)]
        for world in worlds:
            await world.services.nodes.refresh()
        answers = await asyncio.gather(*(worlds[n % 3].create() for n in range(15)))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(201), statuses.count(503)) == (6, 9)
    assert [len(host.sandboxes) for host in hosts] == [2, 2, 2]
    assert "it runs 2 sandboxes (EMBERBOX_MAX_SANDBOXES=2)" in next(
        answer.text for answer in answers if answer.status_code == 503
    )


async def test_one_server_looks_after_a_host(tmp_path: Path, hosts: list[Standin]) -> None:
    settings = settings_for(tmp_path, hosts[0])
    async with running(settings, hosts[0]) as one:
        other_settings = settings.model_copy(update={"port": 1})
        async with running(other_settings, hosts[0]) as other:
            sandbox_id = await one.created()
            await one.becomes(sandbox_id, "running")
            one.services.watcher.start()
            await eventually(lambda: _keeper(one))
            other.services.watcher.start()
            await hosts[0].report(sandbox_id, host_pb.OUTCOME_EXPIRED)
            await one.becomes(sandbox_id, "expired")
            held = (await one.store.nodes.all())[0].keeper_id
            for world, rival in ((one, other), (other, one)):
                node = rival.services.nodes.all()[0]
                if world.services.watcher._name == held:
                    assert not await rival.services.watcher._is_ours(node)
                    await world.services.watcher.close()
                    assert await rival.services.watcher._is_ours(node)


async def _keeper(world: World) -> bool:
    records = await world.store.nodes.all()
    return bool(records and records[0].keeper_id)


async def test_a_silent_hosts_sandboxes_are_unreachable_and_keep_their_quota(
    cluster: World, hosts: list[Standin]
) -> None:
    sandbox_id = await cluster.created(timeout=300)
    row = await cluster.becomes(sandbox_id, "running")
    host = next(one for one in hosts if one.node_id == row.node_id)
    await cluster.limit(concurrent_sandboxes=1)
    await silence(cluster, host)
    detail = (await cluster.http.get(f"/sandboxes/{sandbox_id}")).json()
    assert detail["state"] == "running"
    assert detail["unreachableSince"] < detail["endAt"]
    await cluster.services.reconciler.tidy()
    assert (await cluster.create()).status_code == 429
    await cluster.services.nodes.heard(host.info())
    await cluster.services.nodes.refresh()
    assert "unreachableSince" not in (await cluster.http.get(f"/sandboxes/{sandbox_id}")).json()


@pytest.mark.parametrize(("auto_pause", "after"), [(False, "expired"), (True, "paused")])
async def test_a_deadline_is_a_lease(
    cluster: World, hosts: list[Standin], auto_pause: bool, after: str
) -> None:
    sandbox_id = await cluster.created(autoPause=auto_pause)
    row = await cluster.becomes(sandbox_id, "running")
    host = next(one for one in hosts if one.node_id == row.node_id)
    await cluster.limit(concurrent_sandboxes=1)
    await silence(cluster, host)
    passed = cluster.now() - timedelta(seconds=61)
    await cluster.store.sandboxes.set_deadline(sandbox_id, row.execution_id, passed)
    await cluster.services.reconciler.tidy()
    assert (await cluster.row(sandbox_id)).state == after
    assert (await cluster.create()).status_code == 201


async def test_a_database_that_was_away_makes_nobody_silent(
    cluster: World, hosts: list[Standin], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = cluster.services.nodes
    nodes._blind = True
    for host in hosts:
        await silence(cluster, host)
    assert await cluster.created()
    assert nodes.silent_since("node-0") is None


async def test_a_forgotten_host(cluster: World, hosts: list[Standin]) -> None:
    running_id = await cluster.created()
    row = await cluster.becomes(running_id, "running")
    host = next(one for one in hosts if one.node_id == row.node_id)
    lost = await forget_node(cluster.store, row.node_id, cluster.now())
    assert [one.sandbox_id for one in lost] == [running_id]
    assert (await cluster.row(running_id)).end_reason == f"its host {row.node_id} was forgotten"
    assert (await cluster.http.get(f"/sandboxes/{running_id}")).status_code == 404
    await cluster.services.nodes.heard(host.info())
    await cluster.services.nodes.refresh()
    node = await cluster.services.nodes.get(row.node_id)
    cluster.services.reconciler._comparison(row.node_id).orphan_grace = timedelta(0)
    await cluster.services.reconciler.check(node)
    assert host.deleted == [running_id]


@pytest.fixture
async def shared(cluster: World, hosts: list[Standin]) -> tuple[str, Standin, Standin]:
    """A paused sandbox, its host, which is silent, and another that reaches its files."""
    for host in hosts[:2]:
        host.shared_directory = "one file system"
        await cluster.services.nodes.heard(host.info())
    assert await cluster.store.nodes.set_draining("node-1", draining=True)
    assert await cluster.store.nodes.set_draining("node-2", draining=True)
    await cluster.services.nodes.refresh()
    sandbox_id = await paused(cluster)
    for node_id in ("node-1", "node-2"):
        await cluster.store.nodes.set_draining(node_id, draining=False)
    await silence(cluster, hosts[0])
    return sandbox_id, hosts[0], hosts[1]


async def test_a_paused_one_goes_on_where_its_files_are_reachable(
    cluster: World, shared: tuple[str, Standin, Standin]
) -> None:
    sandbox_id, silent, other = shared
    other.paused[sandbox_id] = silent.paused.pop(sandbox_id)  # as it would by a rename
    answer = await cluster.http.post(f"/sandboxes/{sandbox_id}/connect", json={})
    assert answer.status_code == 201, answer.text
    row = await cluster.row(sandbox_id)
    assert (row.node_id, row.state) == ("node-1", "running")
    assert other.sandboxes[sandbox_id].execution_id == row.execution_id
    await cluster.services.nodes.heard(silent.info())
    await cluster.services.nodes.refresh()
    for node_id in ("node-0", "node-1"):
        await cluster.services.reconciler.check(await cluster.services.nodes.get(node_id))
    assert (await cluster.row(sandbox_id)).state == "running"


async def test_files_that_are_not_reached_stay_where_they_were(
    cluster: World, shared: tuple[str, Standin, Standin]
) -> None:
    sandbox_id, _, _ = shared
    answer = await cluster.http.post(f"/sandboxes/{sandbox_id}/connect", json={})
    assert answer.status_code == 404
    row = await cluster.row(sandbox_id)
    assert (row.node_id, row.state) == ("node-0", "paused")


async def test_only_hosts_that_share_the_files_are_asked(
    cluster: World, hosts: list[Standin], shared: tuple[str, Standin, Standin]
) -> None:
    sandbox_id, _, other = shared
    await silence(cluster, other)
    answer = await cluster.http.post(f"/sandboxes/{sandbox_id}/connect", json={})
    assert answer.status_code == 201  # by its own host, which answers though it was silent
    assert hosts[2].creates == []


async def test_a_paused_one_of_a_forgotten_host_comes_back_with_it(
    cluster: World, hosts: list[Standin]
) -> None:
    sandbox_id = await paused(cluster)
    row = await cluster.row(sandbox_id)
    host = next(one for one in hosts if one.node_id == row.node_id)
    await forget_node(cluster.store, row.node_id, cluster.now())
    assert (await cluster.row(sandbox_id)).state == "crashed"
    await cluster.services.nodes.heard(host.info())
    await cluster.services.nodes.refresh()
    cluster.services.reconciler._comparison(row.node_id).orphan_grace = timedelta(0)
    await cluster.services.reconciler.check(await cluster.services.nodes.get(row.node_id))
    assert (await cluster.row(sandbox_id)).state == "paused"
