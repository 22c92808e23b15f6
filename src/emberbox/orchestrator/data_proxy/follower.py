"""A worker's side of the route feed: takes changes, acknowledges them, comes back when cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.data_proxy.errors import BadFeedError
from emberbox.orchestrator.data_proxy.messages import LONGEST_LINE, Ack, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emberbox.orchestrator.data_proxy.messages import Message

_log = structlog.get_logger()
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0


async def follow(socket_path: Path, apply: Callable[[Message], None]) -> None:
    """Apply what the orchestrator says, for ever.

    While it is away the last table stays; its snapshot replaces the table when it is back.
    """
    wait = _FIRST_WAIT
    connected = True
    while True:
        try:
            await _follow_once(socket_path, apply)
            wait = _FIRST_WAIT
            _log.info("route feed closed, the last table stays")
            connected = True
        except (OSError, BadFeedError, ValueError) as error:
            if connected:
                _log.warning("route feed lost, the last table stays", reason=str(error))
            connected = False
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


async def _follow_once(socket_path: Path, apply: Callable[[Message], None]) -> None:
    reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=LONGEST_LINE)
    try:
        while line := await reader.readline():
            message = decode(line)
            apply(message)
            writer.write(encode(Ack(message.number)))
    finally:
        writer.transport.abort()
