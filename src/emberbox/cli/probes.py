"""Is a program ready? One probe for each kind of program that `up` starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.cli.host import HostUnreachableError

if TYPE_CHECKING:
    from emberbox.cli.host import HostClient


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program says of itself; `status` is for people."""

    ready: bool
    status: str = ""


Probe = Callable[[], Awaitable[Answer | None]]
"""Ask once; None: it does not answer (yet)."""


def http_probe(host: str, port: int, path: str = "/health", timeout: float = 2.0) -> Probe:
    """Ready when a GET is answered with 2xx within `timeout` seconds."""

    async def probe() -> Answer | None:
        try:
            status = await asyncio.wait_for(_status_of(host, port, path), timeout)
        except (OSError, TimeoutError, ValueError, IndexError):
            return None
        return Answer(ready=True) if 200 <= status < 300 else Answer(False, f"answers {status}")

    return probe


def host_probe(client: HostClient) -> Probe:
    """Ready when ServiceInfo says so; its status text tells what it does until then."""

    async def probe() -> Answer | None:
        try:
            info = await client.info()
        except HostUnreachableError as error:
            return None if error.refused else Answer(False, str(error))
        return Answer(info.ready, info.status)

    return probe


async def _status_of(host: str, port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        line = await reader.readline()
        return int(line.split()[1])
    finally:
        writer.close()
