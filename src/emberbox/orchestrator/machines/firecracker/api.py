"""Firecracker's API: JSON over HTTP on a Unix socket, one request after the other."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from emberbox.orchestrator.errors import MachineError, MachineGone
from emberbox.orchestrator.http_answers import MAX_ANSWER, length_of, read_head

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_SECONDS = 10.0
"""For all that moves no guest memory; Firecracker itself has no time limit."""

LARGEST_BODY = 51_200
"""Bytes of a request's body that Firecracker takes, unless it is started with another limit."""

_NO_ANSWER = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)


class Api:
    """A kept connection to one Firecracker.

    `socket` is a descriptor of its socket's file, which this takes: a path could lead elsewhere
    by now, as the directory is the VMM's. What it answers is bounded and not believed.
    """

    def __init__(self, socket: int) -> None:
        self._socket = socket
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def connect(self) -> None:
        """Connect, when nothing is to be asked yet. Raises OSError, TimeoutError."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._connected()

    async def get(self, path: str) -> dict[str, Any]:
        """Raises MachineError, MachineGone."""
        answer = await self._ask("GET", path, b"")
        return answer if isinstance(answer, dict) else {}

    async def put(
        self, path: str, body: Mapping[str, object], seconds: float | None = None
    ) -> None:
        """Raises MachineError with Firecracker's own words, MachineGone."""
        await self._ask("PUT", path, _encoded(path, body), seconds)

    async def patch(self, path: str, body: Mapping[str, object]) -> None:
        """Raises MachineError with Firecracker's own words, MachineGone."""
        await self._ask("PATCH", path, _encoded(path, body))

    def close(self) -> None:
        """End the connection for good; Firecracker goes on."""
        self._disconnect()
        if self._socket >= 0:
            os.close(self._socket)
            self._socket = -1

    async def _ask(
        self, method: str, path: str, body: bytes, seconds: float | None = None
    ) -> object:
        asked, seconds = f"{method} {path}", seconds or ANSWER_SECONDS
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(seconds):
                    status, answer = await self._exchange(asked, body)
            except TimeoutError as error:
                self._disconnect()
                raise MachineError(f"Firecracker did not answer {asked} in {seconds} s") from error
            except _NO_ANSWER as error:
                self._disconnect()
                raise MachineGone(f"Firecracker ended during {asked} ({error!r})") from error
            except BaseException:
                self._disconnect()
                raise
        if not 200 <= status < 300:
            raise MachineError(f"Firecracker refused {asked}: {_fault(status, answer)}")
        return _decoded(answer)

    async def _exchange(self, asked: str, body: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connected()
        head = f"{asked} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        status, headers = await read_head(reader)
        length = 0 if status == 204 else length_of(headers)
        return status, await reader.readexactly(length)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            # By the descriptor, which also keeps within the 107 bytes of a Unix address.
            path = f"/proc/self/fd/{self._socket}"
            self._streams = await asyncio.open_unix_connection(path, limit=MAX_ANSWER)
        return self._streams

    def _disconnect(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _encoded(path: str, body: Mapping[str, object]) -> bytes:
    encoded = json.dumps(body).encode()
    if len(encoded) > LARGEST_BODY:
        raise MachineError(
            f"the body of {path} has {len(encoded)} bytes; Firecracker takes {LARGEST_BODY}"
        )
    return encoded


def _decoded(answer: bytes) -> object:
    try:
        return json.loads(answer) if answer else {}
    except ValueError as error:
        raise MachineError(f"Firecracker's answer is no JSON: {answer[:200]!r}") from error


def _fault(status: int, answer: bytes) -> str:
    """What it says is wrong: in `fault_message`, or for what it did not even read in `error`."""
    try:
        told = json.loads(answer)
        return str(told.get("fault_message") or told["error"])
    except (ValueError, KeyError, AttributeError):
        return f"{status} {answer[:200].decode(errors='replace')}".strip()
