"""Real peers for the engine: backends and clients that speak bytes, on port 0."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from emberbox.proxying.dialing import Dialer
from emberbox.proxying.engine import Engine
from emberbox.proxying.limits import Limits
from emberbox.proxying.pool import Pool
from emberbox.proxying.replies import port_closed
from emberbox.proxying.resolving import Target
from emberbox.proxying.sockets import open_listener

if TYPE_CHECKING:
    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.replies import Reply
    from emberbox.proxying.resolving import Decision, Resolver

Handler = Callable[["Connection"], Awaitable[None]]

PATIENCE = 20.0
"""Seconds. A test's own time limit cannot interrupt uvloop, so each wait has one."""

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD_OF_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
MIB = 1024 * 1024
BLOCK = bytes(range(256)) * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Message:
    """A head and a body, as they came."""

    first_line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: bytes = b""

    def get(self, name: str) -> bytes | None:
        """The value of the only field of that name."""
        values = [value for key, value in self.fields if key.lower() == name.lower().encode()]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def status(self) -> int:
        return int(self.first_line.split(b" ")[1])


class Connection:
    """One side of a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self.writer.drain()

    async def read_head(self) -> Message:
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        fields = [line.split(b": ", 1) for line in lines[1:]]
        return Message(lines[0], [(name, value) for name, value in fields])

    async def read_message(self, *, bodiless: bool = False) -> Message:
        message = await self.read_head()
        if message.get("transfer-encoding") == b"chunked" and not bodiless:
            message.body, message.trailers = await self.read_chunks()
        elif (length := message.get("content-length")) is not None and not bodiless:
            message.body = await self.reader.readexactly(int(length))
        return message

    async def read_chunks(self) -> tuple[bytes, bytes]:
        body = b""
        while chunk := await self.read_chunk():
            body += chunk
        trailers = b""
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            trailers += line
        return body, trailers

    async def read_chunk(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            if size == 0:
                return b""
            chunk = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
            return chunk

    async def ended(self) -> str:
        """How the peer ends the connection: `eof` or `reset`. What came before is dropped."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            return "reset"
        return "eof"

    def half_close(self) -> None:
        self.writer.write_eof()

    def duplicate(self) -> socket.socket:
        """Of its socket, for calls that take effect at once. The caller closes it."""
        return socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno()))

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Backend:
    """A server whose connections run one handler; `seen` are the requests it read."""

    handler: Handler
    seen: list[Message] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self.handler(Connection(reader, writer))
                # What the handler wrote last may still be queued: only then may the end come.
                writer.close()
                await writer.wait_closed()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()


class FixedResolver:
    """Sends a request to the backend named by its `Backend` field, else to the first."""

    def __init__(self, backends: list[Backend], *, pooled: bool) -> None:
        self.backends = backends
        self.pooled = pooled

    def resolve(self, request: RequestHead, peer: str) -> Decision | Awaitable[Decision]:
        assert peer == "127.0.0.1"
        return self.target(int(request.get(b"backend") or b"0"))

    def target(self, number: int) -> Target:
        port = self.backends[number].port
        return Target(
            address="127.0.0.1",
            port=port,
            sandbox_id=f"i{number}",
            sandbox_port=8000,
            execution_id=f"e{number}",
            pool_key=(f"e{number}", port) if self.pooled else None,
        )

    def unreachable(self, target: Target) -> Reply:
        return port_closed(target.sandbox_id, target.sandbox_port)


class Bench:
    """Everything a test starts."""

    def __init__(self) -> None:
        self._backends: list[Backend] = []
        self._engines: list[Engine] = []
        self._clients: list[Connection] = []

    async def backend(self, handler: Handler) -> Backend:
        backend = Backend(handler)
        await backend.start()
        self._backends.append(backend)
        return backend

    async def echo(self) -> Backend:
        """A keep-alive backend that answers each request with its own body."""
        backend = Backend(lambda connection: echo(backend, connection))
        await backend.start()
        self._backends.append(backend)
        return backend

    def keep(self, backend: Backend) -> None:
        """Stop it with the rest."""
        self._backends.append(backend)

    async def serve(self, resolver: Resolver, limits: Limits | None = None) -> tuple[Engine, int]:
        limits = limits or Limits()
        engine = Engine(resolver, limits=limits, dialer=Dialer(limits), pool=Pool(60.0))
        return engine, await self.listen(engine)

    async def listen(self, engine: Engine) -> int:
        listener = open_listener("127.0.0.1", 0)
        port = cast("int", listener.getsockname()[1])
        await engine.serve(listener)
        self._engines.append(engine)
        return port

    async def proxied(
        self, *backends: Backend, pooled: bool = False, limits: Limits | None = None
    ) -> int:
        """The port of an engine in front of some backends."""
        _, port = await self.serve(FixedResolver(list(backends), pooled=pooled), limits)
        return port

    async def connect(self, port: int) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
        self._clients.append(connection)
        return connection

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        for engine in self._engines:
            await engine.drain(0)
        for backend in self._backends:
            await backend.stop()


async def echo(backend: Backend, connection: Connection) -> None:
    while True:
        message = await connection.read_message()
        backend.seen.append(message)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(message.body)
        await connection.send(head + message.body)


def answering(*answers: bytes) -> Handler:
    """A handler that reads a request before each of these answers, then closes."""

    async def handle(connection: Connection) -> None:
        for answer in answers:
            await connection.read_message()
            await connection.send(answer)

    return handle


class Silent:
    """A backend that answers the head and then watches its connection."""

    def __init__(self, answer: bytes = HEAD_OF_CHUNKS) -> None:
        self.answer = answer
        self.reached = asyncio.Event()
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, connection: Connection) -> None:
        await connection.read_head()
        if self.answer:
            await connection.send(self.answer)
        self.reached.set()
        self.over.set_result(await connection.ended())

    async def how_it_ended(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.over


async def send_until_blocked(connection: Connection, most: int = 50 * MIB) -> int:
    """Send until nothing moves: what is taken then sits in kernels' buffers and in ours."""
    sent = 0
    try:
        while sent < most:
            connection.writer.write(BLOCK)
            async with asyncio.timeout(0.5):
                await connection.writer.drain()
            sent += len(BLOCK)
    except TimeoutError:
        pass
    return sent
