"""A small HTTP/1.1 server that plays the control plane and a sandbox behind its proxy."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from emberbox.sdk.connect_protocol import END_OF_STREAM, FrameParser, encode_frame


@dataclass
class Request:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> Any:
        """The one message of a streaming call."""
        (message,) = self.messages
        return message

    @property
    def messages(self) -> list[Any]:
        """All messages of a client stream."""
        return [json.loads(frame.payload) for frame in FrameParser().feed(self.body)]

    @property
    def form(self) -> list[tuple[str | None, bytes]]:
        """File name and content of each part of a multipart form."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        parsed = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        return [(part.get_filename(), part.get_content()) for part in parsed.iter_parts()]


@dataclass
class Answer:
    """What to answer: pieces of a body, then a proper end, a reset, or waiting for ever,
    with or without hearing what the client still says.

    An `early` answer is given before the request's body is read.
    """

    status: int = 200
    body: bytes | list[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    end: str = "close"  # close, reset, hang, deaf
    early: bool = False


Handler = Callable[[Request], Answer | Awaitable[Answer]]


def reply(status: int, record: object = None, **headers: str) -> Answer:
    """A JSON answer."""
    body = b"" if record is None else json.dumps(record).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"Content-Type": "application/json", **named})


def events(*messages: dict[str, Any], error: dict[str, str] | None = None) -> Answer:
    """A server stream that ends properly, well or with an error."""
    last = encode_frame({"error": error} if error else {}, END_OF_STREAM)
    return Answer(200, [*map(encode_frame, messages), last])


class StandIn:
    """Answers as told, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.pieces = 0
        """Pieces of bodies that the network has taken."""
        self.heard = bytearray()
        """What clients said while their answers hung."""
        self.given_up: asyncio.Queue[str] = asyncio.Queue()
        """Path of each request whose answer hung and whose client went away."""
        self.url = ""
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._early: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def on(self, method: str, path: str, *answers: Answer | Handler) -> None:
        """Answer such requests with these, one after the other; the last is repeated."""
        queue = list(answers)

        def handler(request: Request) -> Answer | Awaitable[Answer]:
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            return answer if isinstance(answer, Answer) else answer(request)

        self._handlers[method, path] = handler
        if isinstance(answers[0], Answer) and answers[0].early:
            self._early.add((method, path))

    def sent(self, path: str) -> list[Request]:
        """The requests to a path so far."""
        return [request for request in self.requests if request.path == path]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[StandIn]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (request := await _read_head(reader)) is not None:
                self.requests.append(request)
                answer = await self._answer_in_time(request, reader)
                await self._write(writer, answer)
                if answer.end == "hang":
                    await self._hear(reader)
                    self.given_up.put_nowait(request.path)
                    return
                if answer.end == "deaf":
                    await asyncio.Event().wait()
                if answer.end == "reset":
                    _reset(writer)
                    return
                if answer.early:
                    request.body = await _read_body(reader, request.headers)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer_in_time(self, request: Request, reader: asyncio.StreamReader) -> Answer:
        """The answer, known before the body is read if it is an early one."""
        if (request.method, request.path) in self._early:
            return await self._answer(request)
        request.body = await _read_body(reader, request.headers)
        return await self._answer(request)

    async def _answer(self, request: Request) -> Answer:
        handler = self._handlers.get((request.method, request.path))
        if handler is None:
            return reply(404, {"code": 404, "message": f"no handler for {request.path}"})
        answer = handler(request)
        return answer if isinstance(answer, Answer) else await answer

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while heard := await reader.read(1 << 16):
                self.heard += heard

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        pieces = answer.body
        chunked = isinstance(pieces, list)
        headers = {**answer.headers}
        headers["Transfer-Encoding" if chunked else "Content-Length"] = (
            "chunked" if chunked else str(len(pieces))
        )
        lines = [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {answer.status} X", *lines, "", ""]).encode())
        if not isinstance(pieces, list):
            writer.write(pieces)
        else:
            for piece in pieces:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                self.pieces += 1
            if answer.end == "close":
                writer.write(b"0\r\n\r\n")
        await writer.drain()


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until it is so. Raises TimeoutError after some seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (the stand-in tells nobody what it has heard)
            await asyncio.sleep(0.01)


async def _read_head(reader: asyncio.StreamReader) -> Request | None:
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while (header := (await reader.readline()).decode().strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, target, headers, b"")


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int((await reader.readline()).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
