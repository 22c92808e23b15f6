"""Both proxies in one process, in front of guests that live on addresses of loopback."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from emberbox.client_proxy.catalog import Place, StaticCatalog
from emberbox.client_proxy.edge import make_engine
from emberbox.client_proxy.resolver import EdgeResolver
from emberbox.orchestrator.data_proxy.messages import Delete, Put, Route
from emberbox.orchestrator.data_proxy.worker import Worker
from emberbox.proxying.limits import Limits
from tests.unit.proxying.peers import Backend, Bench, Connection, Handler, echo

if TYPE_CHECKING:
    import asyncio

    from emberbox.proxying.auto_resume import Resumer
    from emberbox.proxying.engine import Engine

SECRET = "s" * 64
ENVD_TEST_PORT = 49983


class Stage(Bench):
    """A worker fed by hand; `edge_port` and `worker_port` are where to connect."""

    def __init__(self, resumer: Resumer | None = None) -> None:
        super().__init__()
        self.worker = Worker(SECRET, resumer=resumer)
        self.edge: Engine | None = None
        self._number = 0
        self._guests: list[asyncio.Server] = []

    async def open(self) -> tuple[int, int]:
        """Start both proxies; return the ports of the edge and of the worker."""
        worker_port = await self.listen(self.worker.engine)
        catalog = StaticCatalog(Place("127.0.0.1", worker_port))
        self.edge = make_engine(EdgeResolver(catalog, SECRET), Limits())
        return await self.listen(self.edge), worker_port

    def put(
        self,
        number: int,
        *,
        execution: str = "e1",
        token: str | None = None,
        envd_token: str | None = None,
        mask: str | None = None,
    ) -> None:
        """Route sandbox `i<number>` to the guest of that number."""
        self._number += 1
        route = Route(f"i{number}", execution, guest_address(number), token, envd_token, mask)
        self.worker.apply(Put(self._number, route))

    def delete(self, number: int, execution: str = "e1") -> None:
        self._number += 1
        self.worker.apply(Delete(self._number, f"i{number}", execution))

    async def guest(self, number: int, port: int, handler: Handler) -> Backend:
        """Listen in a guest."""
        backend = Backend(handler)
        await backend.start(guest_address(number), port)
        self.keep(backend)
        return backend

    async def echoing_guest(self, number: int, port: int) -> Backend:
        """A guest's server that answers with the body of the request."""
        backend = Backend(lambda connection: echo(backend, connection))
        await backend.start(guest_address(number), port)
        self.keep(backend)
        return backend


class Envd:
    """The part of envd that bridges: opens the port on the guest's outer address when told to."""

    def __init__(self, stage: Stage, number: int, inner: Handler | None) -> None:
        self._stage = stage
        self._number = number
        self._inner = inner
        self.asked: list[int] = []

    async def start(self) -> Backend:
        return await self._stage.guest(self._number, ENVD_TEST_PORT, self)

    async def __call__(self, connection: Connection) -> None:
        request = await connection.read_message()
        assert request.first_line == b"POST /bridge HTTP/1.1"
        port = json.loads(request.body)["port"]
        self.asked.append(port)
        if self._inner is not None:
            await self._stage.guest(self._number, port, self._inner)
        answer = json.dumps({"bridged": self._inner is not None}).encode()
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
        )


def guest_address(number: int) -> str:
    """All of 127.0.0.0/8 is this machine: each guest has its own address, and all ports.

    Tests that run at the same time do so in processes of their own.
    """
    return f"127.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF}.{number}"


def request(number: int, port: int = 8000, *fields: str, path: str = "/") -> bytes:
    """A GET as a client of the edge sends it."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {port}-i{number}.example.com", *fields, "", ""]
    return "\r\n".join(lines).encode()


def inner_request(number: int, port: int = 8000, *fields: str, path: str = "/") -> bytes:
    """A GET as the edge sends it to a worker."""
    return request(number, port, f"X-Emberbox-Internal-Secret: {SECRET}", *fields, path=path)
