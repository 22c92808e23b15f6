"""The store on each kind of database, opened several times as by several API servers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from emberbox.api_server.errors import (
    DatabaseUnavailableError,
    QuotaExceededError,
    TemplateNotFoundError,
)
from emberbox.api_server.records.history import What, changed, created, entry
from emberbox.api_server.records.lifecycle import (
    LIVE,
    KillAsked,
    Lost,
    PauseAsked,
    Paused,
    ResumeAsked,
    Started,
    State,
    handle,
)
from emberbox.api_server.store import Build, Limits, Sandbox, Store, Team, Template
from emberbox.api_server.store.rows import BuildState
from emberbox.api_server.tokens import hash_api_key, new_api_key
from emberbox.shared.ids import new_run_id, new_sandbox_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .databases import Databases, PostgresDatabases

NOW = datetime(2026, 8, 21, 10, 0, 0, 123_456, tzinfo=UTC)
SERVERS = 3


@pytest.fixture
async def servers(both_databases: Databases) -> AsyncIterator[list[Store]]:
    """The stores of several API servers over one database."""
    url = both_databases.migrated()
    stores = [await Store.open(url) for _ in range(SERVERS)]
    yield stores
    for store in stores:
        await store.close()


@pytest.fixture
def store(servers: list[Store]) -> Store:
    """One of them."""
    return servers[0]


async def team(store: Store, **limits: int) -> Team:
    made = await store.teams.create(f"team-{new_sandbox_id()}", Limits(**limits), NOW)
    assert made is not None
    return made


def wanted(owner: Team, **values: object) -> Sandbox:
    row = Sandbox(
        sandbox_id=new_sandbox_id(),
        team_id=owner.team_id,
        execution_id=new_run_id(),
        node_id="node-1",
        state=State.CREATING,
        template_id="base",
        template_name="base",
        build_id="of-base",
        vcpu=2,
        ram_mb=512,
        disk_mb=1024,
        envd_version="0.6.13",
        secure=True,
        allow_internet_access=None,
        public_traffic=True,
        options={"mcp": {"a": [1, None, "x"]}},
        metadata={"user": "\N{SNOWMAN}"},
        started_at=NOW,
        end_at=NOW + timedelta(minutes=5),
        timeout=300,
    )
    return replace(row, **values)  # type: ignore[arg-type]


async def reserve(store: Store, row: Sandbox) -> Sandbox | None:
    return await store.sandboxes.reserve(row, created(row))


async def told(store: Store, row: Sandbox) -> list[What]:
    """What the event log tells of it, oldest first."""
    entries = await store.events.page(sandbox_id=row.sandbox_id, limit=100, oldest_first=True)
    return [one.what for one in entries]


async def reserved(store: Store, owner: Team, **values: object) -> Sandbox:
    row = wanted(owner, **values)
    assert await reserve(store, row) is None
    return row


async def apply(store: Store, row: Sandbox, *events: object) -> Sandbox:
    """The row after these events."""
    for event in events:
        transition = handle(row.record, event)  # type: ignore[arg-type]
        entry = changed(row, event, transition, NOW)  # type: ignore[arg-type]
        assert await store.sandboxes.change(
            row.sandbox_id, row.execution_id, transition, NOW, entry
        )
        row = await store.sandboxes.own(row.team_id, row.sandbox_id)
    return row


async def test_a_row_is_read_as_it_was_written(store: Store) -> None:
    row = await reserved(store, await team(store))
    assert await store.sandboxes.get(row.sandbox_id) == row
    assert await store.sandboxes.several([row.sandbox_id, "iother"]) == [row]
    assert await store.sandboxes.live_on("node-1") == [row]


async def test_quota_is_exact_under_parallel_creates(servers: list[Store]) -> None:
    owner = await team(servers[0], concurrent_sandboxes=5, total_vcpu=100)
    results = await asyncio.gather(
        *(reserve(servers[n % SERVERS], wanted(owner)) for n in range(30)),
        return_exceptions=True,
    )
    refused = [one for one in results if isinstance(one, QuotaExceededError)]
    assert (results.count(None), len(refused)) == (5, 25)
    assert len(await servers[1].sandboxes.live_on("node-1")) == 5


async def test_quota_is_exact_when_resumes_and_creates_meet(servers: list[Store]) -> None:
    owner = await team(servers[0], concurrent_sandboxes=3)
    paused = []
    for _ in range(3):
        row = await reserved(servers[0], owner)
        run = row.execution_id
        paused.append(await apply(servers[0], row, Started(run), PauseAsked(run), Paused(run, NOW)))

    async def resume(server: Store, row: Sandbox) -> bool:
        transition = handle(row.record, ResumeAsked(row.execution_id, new_run_id()))
        begun = entry(row, What.RESUMING, NOW)
        return await server.sandboxes.resume(row, transition, row.execution_id, begun)

    results = await asyncio.gather(
        *(resume(servers[n % SERVERS], row) for n, row in enumerate(paused)),
        *(reserve(servers[n % SERVERS], wanted(owner)) for n in range(9)),
        return_exceptions=True,
    )
    taken = [one for one in results if not isinstance(one, QuotaExceededError)]
    assert len(taken) == 3, results
    assert all(one in (None, True) for one in taken)


async def test_what_is_resumed_is_not_counted_twice(store: Store) -> None:
    owner = await team(store, total_disk_mb=1024, total_ram_mb=512, total_vcpu=2)
    row = await reserved(store, owner)
    run = row.execution_id
    row = await apply(store, row, Started(run), PauseAsked(run), Paused(run, NOW))
    with pytest.raises(QuotaExceededError, match="MiB of disk"):
        await reserve(store, wanted(owner))
    transition = handle(row.record, ResumeAsked(run, new_run_id()))
    assert await store.sandboxes.resume(row, transition, run, entry(row, What.RESUMING, NOW))
    with pytest.raises(QuotaExceededError, match="vCPUs"):
        await reserve(store, wanted(owner))


async def test_a_resume_is_begun_once(servers: list[Store]) -> None:
    owner = await team(servers[0])
    row = await reserved(servers[0], owner)
    run = row.execution_id
    row = await apply(servers[0], row, Started(run), PauseAsked(run), Paused(run, NOW))

    async def resume(server: Store) -> bool:
        transition = handle(row.record, ResumeAsked(run, new_run_id()))
        return await server.sandboxes.resume(row, transition, run, entry(row, What.RESUMING, NOW))

    begun = await asyncio.gather(*(resume(server) for server in servers * 3))
    assert begun.count(True) == 1
    assert (await told(servers[1], row)).count(What.RESUMING) == 1


async def test_a_kill_is_written_once(servers: list[Store]) -> None:
    row = await reserved(servers[0], await team(servers[0]))
    event = KillAsked(row.execution_id)
    transition = handle(row.record, event)
    written = await asyncio.gather(
        *(
            server.sandboxes.change(
                row.sandbox_id,
                row.execution_id,
                transition,
                NOW,
                changed(row, event, transition, NOW),
            )
            for server in servers * 4
        )
    )
    assert written.count(True) == 1
    assert await told(servers[1], row) == [What.CREATED, What.KILLING]


async def test_an_idempotency_key_lets_one_in(servers: list[Store]) -> None:
    owner = await team(servers[0])
    rows = [wanted(owner, idempotency_key="once", request_hash="x") for _ in range(9)]
    holders = await asyncio.gather(
        *(reserve(servers[n % SERVERS], row) for n, row in enumerate(rows))
    )
    assert holders.count(None) == 1
    (row,) = await servers[0].sandboxes.live_on("node-1")
    assert all(one in (None, row) for one in holders)


async def test_what_a_console_said_is_kept_without_its_nul(store: Store) -> None:
    row = await reserved(store, await team(store))
    row = await apply(store, row, Lost(row.execution_id, "panic\0" + "x" * 2000))
    assert row.end_reason is not None
    assert row.end_reason.startswith("panic\N{REPLACEMENT CHARACTER}x")
    assert len(row.end_reason) == 512
    assert row.ended_at == NOW


async def test_pages_follow_one_another(store: Store) -> None:
    owner = await team(store)
    moments = [NOW, NOW, NOW + timedelta(microseconds=1), NOW - timedelta(hours=1)]
    rows = [await reserved(store, owner, started_at=moment) for moment in moments]
    for descending in (True, False):
        order = sorted(rows, key=lambda row: row.sandbox_id)
        order.sort(key=lambda row: row.started_at, reverse=descending)
        seen: list[Sandbox] = []
        while len(seen) < len(rows):
            after = (seen[-1].started_at, seen[-1].sandbox_id) if seen else None
            seen += await store.sandboxes.page(
                owner.team_id, LIVE, limit=1, descending=descending, after=after
            )
        assert seen == order
    late = await store.sandboxes.page(owner.team_id, LIVE, limit=9, started_after=NOW)
    assert late == [rows[2]]


def build(owner: Team, **values: object) -> Build:
    made = Build(
        build_id=new_run_id(),
        template_id=new_sandbox_id(),
        node_id="node-1",
        state=BuildState.MAKING,
        vcpu=2,
        ram_mb=512,
        disk_mb=1024,
        envd_version="0.6.13",
        memory=True,
        origin_sandbox_id=owner.team_id,
        created_at=NOW,
    )
    return replace(made, **values)  # type: ignore[arg-type]


async def test_a_build_is_used_or_removed_and_never_both(servers: list[Store]) -> None:
    owner = await team(servers[0])
    for _ in range(10):
        made = build(owner, memory_bytes=5 << 40)
        await servers[0].builds.begin(made, owner.team_id, None)
        await servers[0].builds.release(made)
        used, condemned = await asyncio.gather(
            reserve(servers[1], wanted(owner, build_id=made.build_id)),
            servers[2].builds.condemn(made, NOW),
            return_exceptions=True,
        )
        assert (used is None) is not condemned
        assert used is None or isinstance(used, TemplateNotFoundError)


async def test_snapshots_of_one_name_at_once(servers: list[Store]) -> None:
    owner = await team(servers[0])
    builds = [build(owner, node_id=f"node-{n}") for n in range(SERVERS)]

    async def make(server: Store, made: Build) -> None:
        template_id = await server.builds.begin(made, owner.team_id, "default/tools")
        await server.builds.finish(
            replace(made, template_id=template_id), "default/tools", "default", NOW
        )

    await asyncio.gather(*map(make, servers, builds))
    (snapshot,) = await servers[0].snapshots.page(owner.team_id, limit=9)
    assert snapshot.name == "default/tools"
    tagged = await servers[0].builds.tagged(snapshot.template_id, "default")
    assert tagged is not None
    garbage = {one.build_id for one in await servers[0].builds.garbage(NOW)}
    assert garbage == {one.build_id for one in builds} - {tagged.build_id}
    assert await servers[0].snapshots.delete(snapshot.template_id, None)
    for made in await servers[0].builds.garbage(NOW):
        assert await servers[1].builds.condemn(made, NOW)
        await servers[2].builds.forget(made)
    assert await servers[0].templates.find([snapshot.template_id], owner.team_id) is None


async def test_templates_that_nodes_tell_of_at_once(servers: list[Store]) -> None:
    found = [Template("base-id", "b", ("base", "other"), 2, 512, 1024, "0.6.13")]
    await asyncio.gather(
        *(
            server.templates.put_built_in(f"node-{n}", found, NOW)
            for n, server in enumerate(servers * 3)
        )
    )
    owner = await team(servers[0])
    template = await servers[0].templates.find(["other"], owner.team_id)
    assert template is not None
    assert template.names == ("base", "other")


async def test_settings_of_the_cluster_are_made_once(servers: list[Store]) -> None:
    assert len(set(await asyncio.gather(*(one.cluster.token_seed() for one in servers * 3)))) == 1
    assert len({await one.cluster.cluster_id() for one in servers}) == 1


async def test_teams_and_keys(servers: list[Store]) -> None:
    made = await asyncio.gather(*(one.teams.create("same", Limits(), NOW) for one in servers * 2))
    assert sum(one is not None for one in made) == 1
    owner = await servers[0].teams.find("same")
    assert owner is not None
    key = new_api_key()
    key_id = await servers[0].keys.add(owner.team_id, "laptop", key, NOW)
    await servers[1].keys.touch(key_id, NOW)
    assert await servers[2].keys.team_of_hash(hash_api_key(key) or "") == (key_id, owner)
    (listed,) = await servers[2].keys.list(owner.team_id)
    assert listed.last_used_at == NOW
    assert await servers[1].keys.revoke(key_id, NOW)
    assert await servers[2].keys.team_of_hash(hash_api_key(key) or "") is None
    row = await reserved(servers[0], owner)
    assert await servers[1].teams.delete(owner.team_id) == 1
    await apply(servers[0], row, Lost(row.execution_id, "gone"))
    assert await servers[1].sandboxes.forget_ended(NOW + timedelta(days=1)) == 1
    assert await servers[1].teams.delete(owner.team_id) == 0
    assert await servers[0].teams.find("same") is None


@asynccontextmanager
async def stopped(databases: PostgresDatabases) -> AsyncIterator[None]:
    await asyncio.to_thread(databases.server.end)
    try:
        yield
    finally:
        await asyncio.to_thread(databases.server.start)


async def test_a_restart_of_postgres(postgres_databases: PostgresDatabases) -> None:
    store = await Store.open(postgres_databases.migrated())
    owner = await team(store)
    async with stopped(postgres_databases):
        with pytest.raises(DatabaseUnavailableError, match="try again"):
            await store.teams.find(owner.name)
        with pytest.raises(DatabaseUnavailableError):
            await reserve(store, wanted(owner))
    assert await store.teams.find(owner.name) == owner
    await reserved(store, owner)
    await store.close()


async def test_a_restart_between_two_queries_is_not_noticed(
    postgres_databases: PostgresDatabases,
) -> None:
    store = await Store.open(postgres_databases.migrated())
    owner = await team(store)
    async with stopped(postgres_databases):
        pass
    assert await store.teams.find(owner.name) == owner
    await store.close()
