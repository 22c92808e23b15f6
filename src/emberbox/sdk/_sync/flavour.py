"""What is synchronous here and asynchronous in `_async`: waiting, reading data, WebSockets."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from emberbox.sdk.errors import InvalidArgumentException
from emberbox.sdk.upload_data import (
    check_chunk,
    is_file,
    read_chunk,
    slices,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import websockets.sync.client
    from websockets.typing import Subprotocol

    from emberbox.sdk.upload_data import WriteData

    WebSocket: TypeAlias = websockets.sync.client.ClientConnection
    """Open, and a context manager."""

T = TypeVar("T")

OutputHandler: TypeAlias = Callable[[T], None]
"""A callback for output."""

sleep = time.sleep


def opening_limit(_seconds: float | None) -> AbstractContextManager[None]:
    """No limit, as in `e2b`: a thread that waits for its stream to begin is not interrupted."""
    return nullcontext()


def chunks_of(data: WriteData) -> Iterator[bytes]:
    """The data in pieces. Raises InvalidArgumentException."""
    if isinstance(data, str | bytes):
        yield from slices(data.encode() if isinstance(data, str) else data)
    elif is_file(data):
        while piece := read_chunk(data):
            yield piece
    elif isinstance(data, Iterable):
        yield from map(check_chunk, data)
    else:
        raise InvalidArgumentException(
            f"data to write must be str, bytes, a file or an iterable of bytes,"
            f" not {type(data).__name__}"
        )


def compress(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces as one gzip stream."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for chunk in chunks:
        if piece := compressor.compress(chunk):
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
    """An open WebSocket client connection."""
    from websockets.sync.client import connect  # noqa: PLC0415 (only who needs it pays)

    return connect(
        url,
        additional_headers=headers,
        proxy=proxy,
        subprotocols=cast("Sequence[Subprotocol] | None", subprotocols),
        open_timeout=open_timeout,
        max_size=max_size,
        legacy=True,  # a connection, not an object that only `with` can open
    )
