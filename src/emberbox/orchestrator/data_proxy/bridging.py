"""Ports that listen on the guest's loopback only: envd is asked to make them reachable.

Nothing scans while idle: the question is asked when a connection is refused.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import structlog

from emberbox.proxying.dialing import WhenRefused
from emberbox.proxying.errors import BadMessageError
from emberbox.proxying.heads import parse_response_head
from emberbox.shared.joining import JointCalls
from emberbox.shared.protocol import ENVD_PORT

if TYPE_CHECKING:
    from emberbox.proxying.resolving import Target

_log = structlog.get_logger()
_ANSWER_WITHIN = 2.0
"""Seconds for envd's answer; it only has to look at a table and listen."""
_LONGEST_ANSWER = 64 * 1024
_NO_ANSWER = (
    OSError,
    ValueError,
    RecursionError,  # from JSON that is nested without end
    BadMessageError,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
)


class Bridges:
    """Asks envd once for all requests that wait for the same port of an execution."""

    def __init__(self, *, envd_port: int = ENVD_PORT) -> None:
        self._envd_port = envd_port
        self._asked: JointCalls[tuple[str, int], bool] = JointCalls()

    async def connect_refused(self, target: Target) -> WhenRefused:
        """Wait for envd itself, which is restarted when it dies; bridge any other port."""
        if target.port == self._envd_port:
            return WhenRefused.WAIT
        key = (target.execution_id, target.port)
        bridged = await self._asked.call(key, lambda: self._ask(target.address, target.port))
        return WhenRefused.DIAL_AGAIN if bridged else WhenRefused.GIVE_UP

    async def _ask(self, address: str, port: int) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                return await request_bridge(address, self._envd_port, port)
        except _NO_ANSWER as error:
            _log.warning("envd did not bridge", address=address, port=port, reason=repr(error))
            return False


async def request_bridge(address: str, envd_port: int, port: int) -> bool:
    """Ask the envd at `address`; True when the port is reachable from now on.

    Raises one of `_NO_ANSWER` for anything that is not an answer.
    """
    reader, writer = await asyncio.open_connection(address, envd_port, limit=_LONGEST_ANSWER)
    try:
        body = json.dumps({"port": port}).encode("ascii")
        writer.write(
            b"POST /bridge HTTP/1.1\r\nHost: envd\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = parse_response_head(await reader.readuntil(b"\r\n\r\n"))
        if head.status != 200 or head.content_length is None:
            raise ValueError(f"envd answered {head.status}")
        length = min(head.content_length, _LONGEST_ANSWER)
        answer = json.loads(await reader.readexactly(length))
        return isinstance(answer, dict) and answer.get("bridged") is True
    finally:
        writer.transport.abort()
