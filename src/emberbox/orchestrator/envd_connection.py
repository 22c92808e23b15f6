"""A connection to a guest's envd that is kept: to open one costs the guest as much as to answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.http_answers import MAX_ANSWER, Answer, length_of, read_head
from emberbox.orchestrator.network.errors import NetworkError
from emberbox.orchestrator.network.slots import connect
from emberbox.shared.protocol import ENVD_PORT

if TYPE_CHECKING:
    from emberbox.orchestrator.network.addresses import Slot

_NO_ANSWER = (
    OSError,
    EOFError,
    NetworkError,
    # What somebody who is root in the guest put in envd's place may send.
    ValueError,
    asyncio.LimitOverrunError,
)

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class EnvdConnection:
    """GETs that envd answers its gateway without a token, one at a time.

    A caller bounds their time by cancelling. The connection ends with any of them that fails.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._streams: _Streams | None = None

    async def get(self, path: str) -> Answer:
        """Ask, once more when a kept connection had ended. Raises GuestUnreachable."""
        if self._streams is not None:
            try:
                return await self._ask(path)
            except GuestUnreachable:
                pass
        return await self._ask(path)

    def close(self) -> None:
        """End the connection if there is one; the next `get` makes another."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _ask(self, path: str) -> Answer:
        try:
            answer = await self._exchange(path)
        except _NO_ANSWER as error:
            self.close()
            raise GuestUnreachable(f"envd does not answer {path}: {error!r}") from error
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def _exchange(self, path: str) -> Answer:
        if self._streams is None:
            made = await connect(self._slot, ENVD_PORT)
            self._streams = await asyncio.open_connection(sock=made, limit=MAX_ANSWER)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: envd\r\n\r\n".encode("ascii"))
        await writer.drain()
        status, headers = await read_head(reader)
        return Answer(status, headers, await reader.readexactly(length_of(headers)))
