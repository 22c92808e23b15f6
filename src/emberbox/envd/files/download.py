"""GET and HEAD /files: one file, in pieces, as the user who asks."""

from __future__ import annotations

import json
import os
import zlib
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote

from emberbox.envd.asgi import ClientGoneError, HeaderList, respond
from emberbox.envd.entries import LAST_SECOND
from emberbox.envd.errors import InvalidArgumentError, from_os_error
from emberbox.envd.files.access import authorize
from emberbox.envd.files.encoding import accepted
from emberbox.envd.files.ranges import UnsatisfiableRangeError, parse_range
from emberbox.envd.files.source import open_regular
from emberbox.envd.paths import resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from emberbox.envd.asgi import Request, Send
    from emberbox.envd.files.encoding import Accepted
    from emberbox.envd.state import State
    from emberbox.envd.workers import Workers

_CHUNK = 256 * 1024
"""Large enough that handing work to a thread costs little beside the copying."""

_GZIP_LEVEL = 1
"""The guest's CPU is scarcer than the way to it."""
_WORTHWHILE = 0.7
"""The compressed part of the first piece beyond which a file is sent as it is."""


class Downloads:
    """The endpoint."""

    def __init__(self, state: State, workers: Workers) -> None:
        self._state = state
        self._workers = workers

    async def handle(self, request: Request, send: Send) -> None:
        """Raises EnvdError before the response begins."""
        user = authorize(self._state, request, "read", self._workers.users)
        encodings = accepted(request.headers.get("accept-encoding"))
        path = resolve(request.query.get("path", ""), user, self._state.default_workdir)
        fd = await self._workers.run_as(user, open_regular, path)
        try:
            await _Download(fd, path, request, send, self._workers).run(encodings)
        finally:
            self._workers.close_later(fd)


class _Download:
    def __init__(self, fd: int, path: str, request: Request, send: Send, workers: Workers) -> None:
        self._fd = fd
        self._path = path
        self._request = request
        self._send = send
        self._workers = workers
        self._found = os.fstat(fd)
        self._size = self._found.st_size
        moment = min(max(self._found.st_mtime, 0), LAST_SECOND)  # all that a header can say
        self._modified = formatdate(moment, usegmt=True)

    async def run(self, encodings: Accepted) -> None:
        try:
            wanted = self._range() if encodings.identity else None
        except UnsatisfiableRangeError:
            await self._refuse_range()
            return
        if wanted is not None:
            await self._send_part(206, *wanted)
        elif encodings.gzip and (packer := await self._packer(encodings)):
            await self._send_packed(packer)
        elif self._size:
            await self._send_part(200, 0, self._size)
        else:  # also the files of /proc, which have content but no size
            await self._send_all()

    def _range(self) -> tuple[int, int] | None:
        """Raises UnsatisfiableRangeError; an empty file has no ranges but answers whole."""
        condition = self._request.headers.get("if-range")
        if self._size == 0 or condition not in {None, self._modified}:
            return None
        return parse_range(self._request.headers.get("range"), self._size)

    async def _refuse_range(self) -> None:
        message = f"the range is outside the file, which has {self._size} bytes"
        headers = [
            (b"content-type", b"application/json"),
            (b"content-range", f"bytes */{self._size}".encode()),
        ]
        body = json.dumps({"code": 416, "message": message}).encode()
        await respond(self._send, 416, body, headers)

    async def _begin(self, status: int, *more: tuple[bytes, bytes]) -> bool:
        """Whether a body is to follow."""
        headers = [*_headers(self._path, self._modified), *more]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        if self._request.method != "HEAD":
            return True
        await self._send({"type": "http.response.body", "body": b""})
        return False

    async def _send_part(self, status: int, start: int, length: int) -> None:
        more = [(b"content-length", str(length).encode())]
        if status == 206:
            span = f"bytes {start}-{start + length - 1}/{self._size}"
            more.append((b"content-range", span.encode()))
        if not await self._begin(status, *more):
            return
        while length:
            piece = await self._read(os.pread, self._fd, min(length, _CHUNK), start)
            if not piece:
                # Cut while it was read. The promised length is not reached, so the client knows.
                raise InvalidArgumentError("the file became shorter while it was read")
            start, length = start + len(piece), length - len(piece)
            await self._send_piece(piece, more=length > 0)

    async def _send_all(self) -> None:
        piece = await self._read(os.read, self._fd, _CHUNK)
        length = [] if piece else [(b"content-length", b"0")]
        if not await self._begin(200, *length):
            return
        while piece:
            await self._send_piece(piece, more=True)
            piece = await self._read(_what_there_is, self._fd, _CHUNK)
        await self._send_piece(b"", more=False)

    async def _packer(self, encodings: Accepted) -> _Packer | None:
        """None when the file is better sent as it is."""
        if not encodings.identity:
            return _Packer(self._fd)
        if not self._size:  # what is in it may be read once only, so no sample is taken
            return None
        if encodings.only_gzip:
            return _Packer(self._fd)
        sample = await self._read(os.pread, self._fd, _CHUNK, 0)
        packed = await self._workers.run(zlib.compress, sample, _GZIP_LEVEL)
        return _Packer(self._fd) if len(packed) < _WORTHWHILE * len(sample) else None

    async def _send_packed(self, packer: _Packer) -> None:
        if await self._begin(200, (b"content-encoding", b"gzip")):
            async for piece in self._packed(packer):
                await self._send_piece(piece, more=True)
            await self._send_piece(b"", more=False)

    async def _packed(self, packer: _Packer) -> AsyncIterator[bytes]:
        while not packer.finished:
            if piece := await self._read(packer.next):
                yield piece

    async def _read(self, function: Callable[..., bytes], *arguments: int) -> bytes:
        try:
            return await self._workers.run(function, *arguments)
        except OSError as error:  # some files of /proc refuse, or would block
            raise from_os_error(error, self._path) from error

    async def _send_piece(self, piece: bytes, *, more: bool) -> None:
        if self._request.client_gone:
            raise ClientGoneError
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})


class _Packer:
    """gzip of a file. `next` blocks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._deflater = zlib.compressobj(_GZIP_LEVEL, wbits=31)
        self.finished = False

    def next(self) -> bytes:
        """The next piece, which may be empty before the end."""
        piece = _what_there_is(self._fd, _CHUNK)
        if piece:
            return self._deflater.compress(piece)
        self.finished = True
        return self._deflater.flush()


def _what_there_is(fd: int, length: int) -> bytes:
    """Of a file like /proc/kmsg, which has more at some other time, what came is the whole."""
    try:
        return os.read(fd, length)
    except BlockingIOError:
        return b""


def _headers(path: str, modified: str) -> HeaderList:
    name = os.path.basename(path)  # noqa: PTH119
    return [
        (b"content-type", b"application/octet-stream"),
        (b"content-disposition", f"inline; filename*=utf-8''{quote(os.fsencode(name))}".encode()),
        (b"last-modified", modified.encode()),
        (b"accept-ranges", b"bytes"),
        (b"vary", b"Accept-Encoding"),
    ]
