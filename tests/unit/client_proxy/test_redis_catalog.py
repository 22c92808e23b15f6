"""The catalog as a client proxy reads it from a real Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from emberbox.client_proxy.catalog import Place
from emberbox.client_proxy.redis_catalog import RedisCatalog
from emberbox.client_proxy.resolver import EdgeResolver
from emberbox.proxying import replies
from emberbox.proxying.auto_resume import Resumed
from emberbox.proxying.heads import parse_request_head
from emberbox.proxying.replies import Reply
from emberbox.proxying.resolving import Target
from emberbox.shared.catalog import CHANNEL, CatalogEntry, key_of
from tests.unit.proxying.resumes import Resuming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.services import Redis

FIRST, SECOND = Place("10.0.0.1", 5007, "run"), Place("10.0.0.2", 5007, "run")


@pytest.fixture
async def catalog(redis_server: Redis) -> AsyncIterator[RedisCatalog]:
    made = RedisCatalog.open(redis_server.url)
    while not made.hears_changes:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield made
    await made.close()


def write(redis_server: Redis, sandbox_id: str, host: Place, *, tell: bool = True) -> None:
    entry = CatalogEntry(host.execution_id, f"{host.address}:{host.port}", "a node")
    redis_server.command("SET", key_of(sandbox_id), entry.encode())
    if tell:
        redis_server.command("PUBLISH", CHANNEL, sandbox_id)


async def test_what_was_looked_up_is_known_for_a_moment(
    catalog: RedisCatalog, redis_server: Redis
) -> None:
    assert catalog.find("i1") is None
    assert await catalog.look_up("i1") is None
    write(redis_server, "i1", FIRST)
    assert await catalog.look_up("i1") == FIRST
    assert catalog.find("i1") == FIRST
    catalog._clock = lambda: asyncio.get_running_loop().time() + 6
    assert catalog.find("i1") is None


async def test_a_change_is_heard(catalog: RedisCatalog, redis_server: Redis) -> None:
    write(redis_server, "i1", FIRST)
    assert await catalog.look_up("i1") == FIRST
    write(redis_server, "i1", SECOND)
    while catalog.find("i1") is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await catalog.look_up("i1") == SECOND


async def test_known_hosts_outlive_redis(catalog: RedisCatalog, redis_server: Redis) -> None:
    write(redis_server, "i1", FIRST, tell=False)
    assert await catalog.look_up("i1") == FIRST
    redis_server.end()
    while catalog.hears_changes:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    catalog.doubt("i1")
    assert catalog.find("i1") is None
    assert await catalog.look_up("i1") == FIRST
    assert await catalog.look_up("i2") is None
    redis_server.start()
    write(redis_server, "i1", SECOND)
    assert await catalog.look_up("i1") == SECOND
    while not catalog.hears_changes:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("moment", range(12))
async def test_it_closes_whatever_it_is_about_to_do(redis_server: Redis, moment: int) -> None:
    closed = RedisCatalog.open(redis_server.url)
    for _ in range(moment):
        await asyncio.sleep(0)
    async with asyncio.timeout(8):
        await closed.close()


async def decide(resolver: EdgeResolver, sandbox_id: str) -> Target | Reply:
    head = (
        f"GET / HTTP/1.1\r\nHost: 8000-{sandbox_id}.example.com\r\n"
        "e2b-traffic-access-token: t\r\n\r\n"
    )
    decision = resolver.resolve(parse_request_head(head.encode()), "10.1.1.1")
    return decision if isinstance(decision, Target | Reply) else await decision


async def test_a_miss_asks_the_api_server_once(catalog: RedisCatalog) -> None:
    resuming = Resuming(Resumed("node", "run", "10.0.0.2:8080", "10.0.0.2:5007"))
    resolver = EdgeResolver(catalog, "secret", resuming)
    for _ in range(2):
        target = await decide(resolver, "i9")
        assert isinstance(target, Target)
        assert (target.address, target.port, target.sandbox_port) == ("10.0.0.2", 5007, 8000)
    (asked,) = resuming.asked
    assert (asked.sandbox_id, asked.port, asked.traffic_token) == ("i9", 8000, "t")


async def test_what_the_api_server_refuses_the_client_is_told(catalog: RedisCatalog) -> None:
    refusal = replies.resume_refused("i9")
    assert await decide(EdgeResolver(catalog, "secret", Resuming(refusal)), "i9") is refusal


async def test_a_host_that_does_not_answer_is_looked_up_again(
    catalog: RedisCatalog, redis_server: Redis
) -> None:
    write(redis_server, "i1", FIRST, tell=False)
    resolver = EdgeResolver(catalog, "secret")
    target = await decide(resolver, "i1")
    assert isinstance(target, Target)
    assert resolver.unreachable(target).status == 502
    write(redis_server, "i1", SECOND, tell=False)
    target = await decide(resolver, "i1")
    assert isinstance(target, Target)
    assert target.address == SECOND.address
