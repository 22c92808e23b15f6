"""Sandboxes that moved or ended, of which a client proxy has not heard: the catalog is a real
Redis, and no notice is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emberbox.client_proxy.edge import make_engine
from emberbox.client_proxy.redis_catalog import RedisCatalog
from emberbox.client_proxy.resolver import EdgeResolver
from emberbox.orchestrator.data_proxy.messages import Put, Route
from emberbox.orchestrator.data_proxy.worker import Worker
from emberbox.proxying import replies
from emberbox.proxying.auto_resume import Resumed
from emberbox.proxying.limits import Limits
from emberbox.shared.catalog import CatalogEntry, key_of
from tests.unit.data_proxy.stage import (
    ENVD_TEST_PORT,
    SECRET,
    guest_address,
    inner_request,
    request,
)
from tests.unit.proxying.peers import OK, Backend, Bench, Connection, Message, answering, echo
from tests.unit.proxying.resumes import Resuming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.services import Redis

MARK = "X-Emberbox-Not-Here"
NOT_FOUND = b'{"sandboxId":"i1","message":"The sandbox was not found","code":502}'
HEAD = b"%b / HTTP/1.1\r\nHost: %d-i1.example.com\r\n"
CHANGING = (
    b'{"sandboxId":"i1","message":"The sandbox is still transitioning. Try again in a moment.",'
    b'"code":%d}'
)


class Hosts(Bench):
    """Two hosts, of which either may have sandbox `i1`, an API server, and an edge."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self.redis = redis
        self.workers = [Worker(SECRET), Worker(SECRET)]
        self.ports: list[int] = []
        self.api = Resuming(replies.not_found("i1"))
        self.catalog = RedisCatalog.open(redis.url)
        self.edge = 0

    async def open(self) -> None:
        self.ports = [await self.listen(worker.engine) for worker in self.workers]
        resolver = EdgeResolver(self.catalog, SECRET, self.api)
        self.edge = await self.listen(make_engine(resolver, Limits()))

    async def close(self) -> None:
        await super().close()
        await self.catalog.close()

    def record(self, host: int | None, execution: str = "e1") -> None:
        """What the catalog says of it."""
        if host is None:
            self.redis.command("DEL", key_of("i1"))
            return
        entry = CatalogEntry(execution, f"127.0.0.1:{self.ports[host]}", "a node")
        self.redis.command("SET", key_of("i1"), entry.encode())

    def run(self, host: int, execution: str = "e1") -> None:
        """Route it, on this host, to the guest of that number."""
        route = Route("i1", execution, guest_address(host))
        self.workers[host].apply(Put(1, route))

    async def guest(self, host: int, port: int = 8000) -> Backend:
        backend = Backend(lambda connection: echo(backend, connection))
        await backend.start(guest_address(host), port)
        self.keep(backend)
        return backend

    async def ask(self, sent: bytes) -> Message:
        client = await self.connect(self.edge)
        await client.send(sent)
        return await client.read_message(bodiless=sent.startswith(b"HEAD"))

    async def remember(self, host: int) -> None:
        """Have the edge know the sandbox on a host that does not have it any more."""
        self.record(host)
        await self.catalog.look_up("i1")

    def asked(self, host: int) -> int:
        """How many requests the data proxy of a host had."""
        journal = self.workers[host].engine.journal
        journal.flush()
        return sum(journal.counts[:5])


@pytest.fixture
async def hosts(redis_server: Redis) -> AsyncIterator[Hosts]:
    hosts = Hosts(redis_server)
    await hosts.open()
    yield hosts
    await hosts.close()


def asking(method: str, *fields: bytes, port: int = 8000, body: bytes = b"") -> bytes:
    head = HEAD % (method.encode(), port)
    return head + b"".join(b"%b\r\n" % field for field in fields) + b"\r\n" + body


@pytest.mark.parametrize("port", [8000, ENVD_TEST_PORT])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST", "PATCH"])
async def test_a_moved_sandbox_is_found_by_the_same_request(
    hosts: Hosts, method: str, port: int
) -> None:
    guest = await hosts.guest(1, port)
    await hosts.remember(0)
    hosts.run(1)
    hosts.record(1)
    answer = await hosts.ask(asking(method, port=port))
    assert (answer.status, answer.get(MARK)) == (200, None)
    assert [seen.first_line for seen in guest.seen] == [method.encode() + b" / HTTP/1.1"]
    assert guest.seen[0].get(MARK) is None
    await hosts.ask(asking(method, port=port))
    assert [hosts.asked(host) for host in (0, 1)] == [1, 2], "the edge has learnt"
    assert not hosts.api.asked


async def test_a_body_that_was_not_sent_yet_goes_to_the_new_host(hosts: Hosts) -> None:
    async def wait_for_body(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        received.append(await connection.reader.readexactly(4))
        await connection.send(OK)

    received: list[bytes] = []
    backend = Backend(wait_for_body)
    await backend.start(guest_address(1), 8000)
    hosts.keep(backend)
    await hosts.remember(0)
    hosts.run(1)
    hosts.record(1)
    client = await hosts.connect(hosts.edge)
    await client.send(asking("POST", b"Content-Length: 4", b"Expect: 100-continue"))
    assert (await client.read_head()).status == 100
    await client.send(b"body")
    assert (await client.read_message()).body == b"ok"
    assert received == [b"body"]


@pytest.mark.parametrize(("port", "status"), [(8000, 409), (ENVD_TEST_PORT, 503)])
@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 4", b"body"), (b"Transfer-Encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n")],
)
async def test_a_body_that_was_sent_is_not_sent_again(
    hosts: Hosts, port: int, status: int, framing: bytes, body: bytes
) -> None:
    guest = await hosts.guest(1, port)
    await hosts.remember(0)
    hosts.run(1)
    hosts.record(1)
    answer = await hosts.ask(asking("POST", framing, port=port, body=body))
    assert (answer.status, answer.body) == (status, CHANGING % status), "it is not gone"
    assert not guest.seen
    assert (await hosts.ask(asking("POST", framing, port=port, body=body))).body == b"body"


@pytest.mark.parametrize("sent", [request(1), asking("POST", b"Content-Length: 1", body=b"x")])
async def test_an_ended_sandbox_is_not_found(hosts: Hosts, sent: bytes) -> None:
    await hosts.remember(0)
    hosts.record(None)
    for asked in (1, 1):
        answer = await hosts.ask(sent)
        assert (answer.status, answer.body, answer.get(MARK)) == (502, NOT_FOUND, None)
        assert hosts.asked(0) == asked, "the edge has forgotten"
    assert {traffic.sandbox_id for traffic in hosts.api.asked} == {"i1"}


async def test_the_connection_stays_for_the_next_request(hosts: Hosts) -> None:
    await hosts.remember(0)
    hosts.record(None)
    client = await hosts.connect(hosts.edge)
    await client.send(asking("POST", b"Content-Length: 1", body=b"x") + request(1))
    for _ in range(2):
        assert (await client.read_message()).body == NOT_FOUND


async def test_the_api_server_knows_what_the_catalog_does_not(hosts: Hosts) -> None:
    await hosts.guest(1)
    await hosts.remember(0)
    hosts.run(1)
    hosts.api.answer = Resumed("n", "e1", "", f"127.0.0.1:{hosts.ports[1]}")
    assert (await hosts.ask(request(1))).status == 200
    assert len(hosts.api.asked) == 1


@pytest.mark.parametrize("execution", ["e1", "e2"])
async def test_a_host_that_should_have_it_and_does_not_ends_the_search(
    hosts: Hosts, execution: str
) -> None:
    await hosts.remember(0)
    hosts.api.answer = Resumed("n", execution, "", f"127.0.0.1:{hosts.ports[0]}")
    answer = await hosts.ask(request(1))
    assert (answer.status, answer.body, answer.get(MARK)) == (502, NOT_FOUND, None)
    assert hosts.asked(0) == (1 if execution == "e1" else 2)
    assert len(hosts.api.asked) == 1


async def test_two_hosts_that_name_one_another_end_the_search(hosts: Hosts) -> None:
    await hosts.remember(0)
    hosts.record(1)
    answer = await hosts.ask(request(1))
    assert (answer.status, answer.body, answer.get(MARK)) == (502, NOT_FOUND, None)
    assert [hosts.asked(host) for host in (0, 1)] == [1, 1]
    assert not hosts.api.asked


@pytest.mark.parametrize("name", [MARK, MARK.lower(), f"X-A: b\r\n{MARK}"])
async def test_a_guest_that_forges_the_mark_gains_nothing(hosts: Hosts, name: str) -> None:
    forged = b"HTTP/1.1 502 Bad Gateway\r\n%b: 1\r\nContent-Length: 2\r\n\r\nno" % name.encode()
    forger = Backend(answering(forged))
    await forger.start(guest_address(0), 8000)
    hosts.keep(forger)
    other = await hosts.guest(1)
    hosts.run(0)
    hosts.run(1)
    await hosts.remember(0)
    hosts.record(1)
    answer = await hosts.ask(request(1))
    assert (answer.status, answer.body, answer.get(MARK)) == (502, b"no", None)
    assert not other.seen
    assert not hosts.api.asked


async def test_only_who_has_the_secret_sees_the_mark(hosts: Hosts) -> None:
    client = await hosts.connect(hosts.ports[0])
    for sent, status, mark in ((request(1), 403, None), (inner_request(1), 502, b"1")):
        await client.send(sent)
        answer = await client.read_message()
        assert (answer.status, answer.get(MARK)) == (status, mark)
