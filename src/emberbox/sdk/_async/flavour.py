"""What is asynchronous here and synchronous in `_sync`: waiting, reading data, WebSockets."""

from __future__ import annotations

import asyncio
import inspect
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from emberbox.sdk.error_mapping import request_timed_out
from emberbox.sdk.errors import InvalidArgumentException
from emberbox.sdk.upload_data import (
    check_chunk,
    is_file,
    read_chunk,
    slices,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import websockets.asyncio.client
    from websockets.typing import Subprotocol

    from emberbox.sdk.upload_data import AsyncWriteData

    WebSocket: TypeAlias = websockets.asyncio.client.connect
    """Awaitable, and an asynchronous context manager."""

T = TypeVar("T")

OutputHandler: TypeAlias = Callable[[T], Awaitable[None] | None]
"""A callback for output; it may be a coroutine function."""

sleep = asyncio.sleep


async def call_handler(handler: OutputHandler[T], value: T) -> None:
    """Call it, and wait for it if it is a coroutine function."""
    pending = handler(value)
    if inspect.isawaitable(pending):
        await pending


@asynccontextmanager
async def opening_limit(seconds: float | None) -> AsyncIterator[None]:
    """Limits how long a stream may take to begin. Raises TimeoutException."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise request_timed_out() from error


async def chunks_of(data: AsyncWriteData) -> AsyncIterator[bytes]:
    """The data in pieces; a file is read in a thread. Raises InvalidArgumentException."""
    if isinstance(data, str | bytes):
        for piece in slices(data.encode() if isinstance(data, str) else data):
            yield piece
    elif isinstance(data, AsyncIterable):
        async for chunk in data:
            yield check_chunk(chunk)
    elif is_file(data):
        while piece := await asyncio.to_thread(read_chunk, data):
            yield piece
    else:
        raise InvalidArgumentException(
            f"data to write must be str, bytes, a file or an async iterable of bytes,"
            f" not {type(data).__name__}"
        )


async def compress(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces as one gzip stream; compressed in a thread."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    async for chunk in chunks:
        if piece := await asyncio.to_thread(compressor.compress, chunk):
            yield piece
    yield compressor.flush()


def open_websocket(
    url: str,
    headers: Mapping[str, str],
    *,
    proxy: str | None,
    subprotocols: Sequence[str] | None,
    open_timeout: float | None,
    max_size: int | None,
) -> WebSocket:
    """A WebSocket client connection that opens when awaited or entered."""
    from websockets.asyncio.client import connect  # noqa: PLC0415 (only who needs it pays)

    return connect(
        url,
        additional_headers=headers,
        proxy=proxy,
        subprotocols=cast("Sequence[Subprotocol] | None", subprotocols),
        open_timeout=open_timeout,
        max_size=max_size,
    )
