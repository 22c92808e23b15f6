"""POST /files: one or many files, in pieces, as the user who asks."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from emberbox.envd.asgi import respond_json
from emberbox.envd.errors import InvalidArgumentError, TooLargeError
from emberbox.envd.files import metadata
from emberbox.envd.files.access import authorize
from emberbox.envd.files.multipart import PartEnd, PartEvent, Parts, PartStart, boundary_of
from emberbox.envd.files.target import Target, described
from emberbox.envd.paths import resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emberbox.envd.asgi import Request, Send
    from emberbox.envd.state import State
    from emberbox.envd.users import User
    from emberbox.envd.workers import Workers

_BATCH = 256 * 1024
"""Bytes gathered before a thread writes them."""

_PARSED_AT_ONCE = 16 * 1024
"""Bytes of multipart; more may be thousands of parts, which take a tenth of a second."""

_MAX_FILES = 10_000
"""In one request: their descriptions are held in memory."""


class Uploads:
    """The endpoint."""

    def __init__(self, state: State, workers: Workers) -> None:
        self._state = state
        self._workers = workers

    async def handle(self, request: Request, send: Send) -> None:
        """Answers with one description per file."""
        user = authorize(self._state, request, "write", self._workers.users)
        upload = _Upload(request, user, self._state.default_workdir, self._workers)
        await respond_json(send, 200, await upload.run())


class _Upload:
    def __init__(self, request: Request, user: User, workdir: str, workers: Workers) -> None:
        self._request = request
        self._user = user
        self._workdir = workdir
        self._workers = workers
        self._path = request.query.get("path", "")
        self._metadata = metadata.from_headers(request.headers)
        self._written: list[dict[str, object]] = []

    async def run(self) -> list[dict[str, object]]:
        kind = self._request.headers.get("content-type", "")
        media_type = kind.partition(";")[0].strip().lower()
        if media_type == "multipart/form-data":
            await self._multipart(boundary_of(kind))
        elif media_type == "application/octet-stream":
            await self._single()
        else:
            raise InvalidArgumentError(
                f"content type '{kind}' must be multipart/form-data or application/octet-stream"
            )
        return self._written

    async def _single(self) -> None:
        if not self._path:
            raise InvalidArgumentError("query parameter 'path' is missing")
        async with self._target(self._path) as target:
            async for piece in _batches(self._body()):
                await target.write(piece)
        self._written.append(described(target.path, self._metadata))

    async def _multipart(self, boundary: str) -> None:
        parts = Parts(boundary)
        target: Target | None = None
        try:
            async for piece in _batches(self._body()):
                for event in await self._parsed(parts, piece):
                    if isinstance(event, PartStart):
                        target = await self._start_part(event)
                    elif target is None:
                        continue
                    elif isinstance(event, PartEnd):
                        await target.close()
                        self._written.append(described(target.path, self._metadata))
                        target = None
                    else:
                        await target.write(event)
            parts.finish()
        except BaseException:
            if target is not None:
                await target.discard()
            raise
        if not self._written:
            raise InvalidArgumentError("the body has no part named 'file'")

    async def _parsed(self, parts: Parts, piece: bytes) -> list[PartEvent]:
        if len(piece) <= _PARSED_AT_ONCE:
            return parts.feed(piece)
        return await self._workers.run(parts.feed, piece)

    async def _start_part(self, part: PartStart) -> Target | None:
        if part.name != "file":
            return None
        if len(self._written) == _MAX_FILES:
            raise TooLargeError(f"more than {_MAX_FILES} files in one request: send several")
        if self._path and self._written:
            raise InvalidArgumentError("query parameter 'path' is for a single file")
        path = self._path or part.filename
        if not path:
            raise InvalidArgumentError("a part named 'file' has no filename and 'path' is missing")
        target = self._target(path)
        await target.open()
        return target

    def _target(self, path: str) -> Target:
        return Target(
            resolve(path, self._user, self._workdir),
            self._user,
            self._metadata,
            self._workers,
            announced=self._announced_size(),
        )

    def _announced_size(self) -> int:
        if self._written:  # part of it is used already
            return 0
        length = self._request.headers.get("content-length", "")
        return int(length) if length.isdigit() else 0

    def _body(self) -> AsyncIterator[bytes]:
        encoding = self._request.headers.get("content-encoding", "identity").strip().lower()
        if encoding in {"", "identity"}:
            return _raw(self._request)
        if encoding == "gzip":
            return _unzipped(_raw(self._request))
        raise InvalidArgumentError(f"content encoding '{encoding}' must be gzip or identity")


async def _raw(request: Request) -> AsyncIterator[bytes]:
    while (chunk := await request.receive_chunk()) is not None:
        yield chunk


async def _unzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Several gzip members may follow one another. Never more than a batch comes out at once."""
    inflater = zlib.decompressobj(wbits=31)
    async for chunk in chunks:
        left = chunk
        while left:
            try:
                piece = inflater.decompress(left, _BATCH)
            except zlib.error as error:
                raise InvalidArgumentError(f"the body is not gzip: {error}") from error
            yield piece
            await asyncio.sleep(0)  # one chunk may become a thousand pieces
            left = inflater.unconsumed_tail
            if inflater.eof and inflater.unused_data:
                left, inflater = inflater.unused_data, zlib.decompressobj(wbits=31)
    if not inflater.eof:
        raise InvalidArgumentError("the gzip body ends too early")


async def _batches(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Small pieces put together, so that a write is worth its thread."""
    gathered: list[bytes] = []
    size = 0
    async for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _BATCH:
            yield b"".join(gathered)
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)
