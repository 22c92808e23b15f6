"""The released `e2b` package against the control plane."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, Sandbox, SandboxQuery, SandboxState
from e2b.connection_config import ApiParams
from e2b.exceptions import (
    AuthenticationException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    ServiceBusyException,
)

if TYPE_CHECKING:
    from .harness import World


@pytest.fixture
def options(world: World) -> ApiParams:
    return ApiParams(api_key=world.key, api_url=world.url, domain="sandboxes.example")


async def test_life_of_a_sandbox(world: World, options: ApiParams) -> None:
    def life() -> str:
        sandbox = Sandbox.create(metadata={"a b": "c/d"}, timeout=100, **options)
        info = sandbox.get_info()
        assert info.sandbox_id == sandbox.sandbox_id
        assert info.metadata == {"a b": "c/d"}
        assert info.name == "base"
        assert info.state.value == "running"
        assert (info.cpu_count, info.memory_mb) == (2, 512)
        assert info.envd_version == "0.6.13"
        query = SandboxQuery(metadata={"a b": "c/d"})
        (listed,) = Sandbox.list(query=query, **options).next_items()
        assert listed.sandbox_id == sandbox.sandbox_id
        Sandbox.set_timeout(sandbox.sandbox_id, 50, **options)
        left = Sandbox.get_info(sandbox.sandbox_id, **options).end_at - datetime.now(UTC)
        assert 40 < left.total_seconds() < 60
        connected = Sandbox.connect(sandbox.sandbox_id, timeout=500, **options)
        assert connected._envd_access_token == sandbox._envd_access_token
        assert sandbox.kill() is True
        assert sandbox.kill() is False
        with pytest.raises(SandboxNotFoundException):
            sandbox.get_info()
        with pytest.raises(SandboxNotFoundException):
            Sandbox.connect(sandbox.sandbox_id, **options)
        with pytest.raises(SandboxNotFoundException):
            sandbox.set_timeout(10)
        return sandbox.sandbox_id

    sandbox_id = await asyncio.to_thread(life)
    assert (await world.row(sandbox_id)).state == "killed"


async def test_pause_and_resume(world: World, options: ApiParams) -> None:
    def life() -> None:
        sandbox = Sandbox.create(
            metadata={"k": "v"},
            lifecycle={"on_timeout": "pause", "auto_resume": True},
            **options,
        )
        token = sandbox._envd_access_token
        assert sandbox.pause()
        assert not sandbox.pause()
        info = sandbox.get_info()
        assert info.state is SandboxState.PAUSED
        assert info.lifecycle is not None
        query = SandboxQuery(state=[SandboxState.PAUSED])
        (listed,) = Sandbox.list(query=query, **options).next_items()
        assert listed.sandbox_id == sandbox.sandbox_id
        with pytest.raises(SandboxNotFoundException):
            sandbox.set_timeout(10)
        resumed = Sandbox.connect(sandbox.sandbox_id, timeout=77, **options)
        assert resumed._envd_access_token == token
        assert resumed.get_info().state is SandboxState.RUNNING
        assert Sandbox.pause(sandbox.sandbox_id, **options)
        assert sandbox.kill()
        assert not sandbox.kill()
        with pytest.raises(SandboxNotFoundException):
            Sandbox.pause(sandbox.sandbox_id, **options)

    await asyncio.to_thread(life)


async def test_snapshots_and_forks(world: World, options: ApiParams) -> None:
    def life() -> None:
        sandbox = Sandbox.create(**options)
        named = sandbox.create_snapshot(name="tools")
        assert named.snapshot_id == "default/tools:default"
        unnamed = Sandbox.create_snapshot(sandbox.sandbox_id, **options)
        assert [one.snapshot_id for one in Sandbox.list_snapshots(**options).next_items()] == [
            unnamed.snapshot_id,
            named.snapshot_id,
        ]
        child = Sandbox.create(named.snapshot_id, **options)
        assert child._envd_access_token != sandbox._envd_access_token
        with pytest.raises(SandboxException, match="400"):
            Sandbox.delete_snapshot(named.snapshot_id, **options)
        child.kill()
        assert Sandbox.delete_snapshot(named.snapshot_id, **options)
        assert not Sandbox.delete_snapshot(named.snapshot_id, **options)
        first, second = sandbox.fork(count=2)
        assert isinstance(first, Sandbox)
        assert isinstance(second, Sandbox)
        assert len({first.sandbox_id, second.sandbox_id, sandbox.sandbox_id}) == 3
        world.host.capacity = 0
        (failed,) = sandbox.fork()
        assert isinstance(failed, ServiceBusyException)
        sandbox.pause()
        with pytest.raises(SandboxException, match="409"):
            sandbox.fork()
        with pytest.raises(SandboxNotFoundException):
            sandbox.create_snapshot()

    await asyncio.to_thread(life)


async def test_pages(world: World, options: ApiParams) -> None:
    made = [await world.created() for _ in range(3)]

    def all_pages() -> list[str]:
        pages = Sandbox.list(limit=2, **options)
        found: list[str] = []
        sizes = []
        while pages.has_next:
            page = pages.next_items()
            found += [one.sandbox_id for one in page]
            sizes.append(len(page))
        assert sizes == [2, 1]
        return found

    assert await asyncio.to_thread(all_pages) == made[::-1]


async def test_the_async_client(world: World, options: ApiParams) -> None:
    sandbox = await AsyncSandbox.create(**options)
    assert (await sandbox.get_info()).sandbox_id == sandbox.sandbox_id
    assert await sandbox.kill() is True


async def test_errors_become_its_exceptions(world: World, options: ApiParams) -> None:
    unknown = options.copy()
    unknown["api_key"] = "e2b_" + "00" * 20

    def wrong() -> None:
        with pytest.raises(AuthenticationException):
            Sandbox.create(**unknown)
        with pytest.raises(SandboxException, match="404: template 'nope' not found"):
            Sandbox.create("nope", **options)
        with pytest.raises(SandboxException, match="400: Timeout must be greater than 0"):
            Sandbox.create(timeout=-1, **options)
        with pytest.raises(SandboxException, match=r"501: .*: not available in Emberbox yet"):
            Sandbox.create(network={"egress_proxy": {"address": "a:1080"}}, **options)

    await asyncio.to_thread(wrong)


async def test_a_full_host_and_a_full_team(world: World, options: ApiParams) -> None:
    def create() -> None:
        Sandbox.create(**options)

    world.host.capacity = 0
    with pytest.raises(ServiceBusyException, match="no memory left"):
        await asyncio.to_thread(create)
    await world.limit(concurrent_sandboxes=0)
    with pytest.raises(RateLimitException):
        await asyncio.to_thread(create)
