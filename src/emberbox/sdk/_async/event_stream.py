"""The messages of one server stream."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import httpx2

from emberbox.sdk.connect_protocol import FrameParser, decode_message, stream_error
from emberbox.sdk.errors import SandboxException

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from emberbox.sdk.connect_protocol import Frame
    from emberbox.sdk.json_fields import JsonObject


class AsyncEventStream:
    """Iterates over the messages; holds a connection until it ends or is closed.

    `explain` turns an error of the connection or of the server into the one to raise.
    `limit` is the longest that the whole stream may take, in seconds.
    """

    def __init__(
        self,
        response: httpx2.Response,
        explain: Callable[[Exception], Awaitable[Exception]],
        limit: float | None,
    ) -> None:
        self._response = response
        self._explain = explain
        self._deadline = None if limit is None else time.monotonic() + limit
        self._chunks = response.aiter_raw()
        self._parser = FrameParser()
        self._messages: deque[JsonObject] = deque()
        self._ended = False

    def __aiter__(self) -> AsyncEventStream:
        return self

    async def __anext__(self) -> JsonObject:
        while not self._messages:
            if self._ended:
                raise StopAsyncIteration
            await self._receive()
        return self._messages.popleft()

    async def aclose(self) -> None:
        """End the stream and give up its connection. Can be called again."""
        self._ended = True
        self._messages.clear()
        await self._response.aclose()

    async def _receive(self) -> None:
        try:
            await self._receive_chunk()
        except (httpx2.StreamError, StopAsyncIteration):
            # Closed by us, or a body that ended without an EndStream envelope: whether the
            # command had ended is known by whoever reads the messages.
            await self._finish()
        except Exception as error:
            await self.aclose()
            raise await self._explain(error) from error

    async def _receive_chunk(self) -> None:
        chunk = await anext(self._chunks)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise httpx2.ReadTimeout("the stream outlived its limit")
        for frame in self._parser.feed(chunk):
            await self._take(frame)

    async def _take(self, frame: Frame) -> None:
        if not frame.ends_stream:
            self._messages.append(decode_message(frame))
            return
        error = stream_error(frame)
        if error is not None:
            raise error
        self._ended = True
        await self._response.aclose()

    async def _finish(self) -> None:
        self._ended = True
        await self._response.aclose()
        if self._parser.incomplete:
            raise SandboxException("the stream ended in the middle of a message")
