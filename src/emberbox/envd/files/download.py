"""GET /files: one file, in pieces, as the user who asks."""

from __future__ import annotations

import os
import stat
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote

from emberbox.envd.asgi import HeaderList, respond
from emberbox.envd.errors import InvalidArgumentError, UnacceptableError
from emberbox.envd.files.access import authorize
from emberbox.envd.files.ranges import UnsatisfiableRangeError, parse_range
from emberbox.envd.paths import resolve

if TYPE_CHECKING:
    from emberbox.envd.asgi import Request, Send
    from emberbox.envd.state import State
    from emberbox.envd.workers import Workers

_CHUNK = 256 * 1024
"""Large enough that handing work to a thread costs little beside the copying."""


class Downloads:
    """The endpoint."""

    def __init__(self, state: State, workers: Workers) -> None:
        self._state = state
        self._workers = workers

    async def handle(self, request: Request, send: Send) -> None:
        """Raises EnvdError before the response begins."""
        user = authorize(self._state, request, "read", self._workers.users)
        _check_encoding(request.headers.get("accept-encoding"))
        path = resolve(request.query.get("path", ""), user, self._state.default_workdir)
        fd = await self._workers.run_as(user, _open, path)
        try:
            await self._send(fd, path, request, send)
        finally:
            os.close(fd)

    async def _send(self, fd: int, path: str, request: Request, send: Send) -> None:
        found = os.fstat(fd)
        headers = _headers(path, found)
        size = found.st_size
        if size == 0:  # also the files of /proc, which have content but no size
            await self._send_all(fd, headers, send)
            return
        try:
            wanted = parse_range(request.headers.get("range"), size)
        except UnsatisfiableRangeError:
            await respond(send, 416, headers=[(b"content-range", f"bytes */{size}".encode())])
            return
        start, length = wanted or (0, size)
        if wanted:
            span = f"bytes {start}-{start + length - 1}/{size}"
            headers.append((b"content-range", span.encode()))
        headers.append((b"content-length", str(length).encode()))
        status = 206 if wanted else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send_part(fd, start, length, send)

    async def _send_part(self, fd: int, start: int, length: int, send: Send) -> None:
        while length:
            piece = await self._workers.run(os.pread, fd, min(length, _CHUNK), start)
            if not piece:
                # Cut while it was read. The promised length is not reached, so the client knows.
                raise InvalidArgumentError("the file became shorter while it was read")
            start, length = start + len(piece), length - len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": length > 0})

    async def _send_all(self, fd: int, headers: HeaderList, send: Send) -> None:
        piece = await self._workers.run(os.read, fd, _CHUNK)
        if not piece:
            await respond(send, 200, headers=headers)
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await self._workers.run(os.read, fd, _CHUNK)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _open(path: str) -> int:
    # Not blocking: a named pipe would hold the thread until somebody writes.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise InvalidArgumentError(f"path '{path}' is {kind}")


def _headers(path: str, found: os.stat_result) -> HeaderList:
    name = os.path.basename(path)  # noqa: PTH119
    return [
        (b"content-type", b"application/octet-stream"),
        (b"content-disposition", f"inline; filename*=utf-8''{quote(os.fsencode(name))}".encode()),
        (b"last-modified", formatdate(found.st_mtime, usegmt=True).encode()),
        (b"accept-ranges", b"bytes"),
        (b"vary", b"Accept-Encoding"),
    ]


def _check_encoding(header: str | None) -> None:
    """Files are sent as they are. Raises UnacceptableError where that is refused."""
    weights = {}
    for item in (header or "").split(","):
        coding, _, weight = item.partition(";")
        weights[coding.strip().lower()] = weight.replace(" ", "").lower()
    refused = weights.get("identity", weights.get("*", ""))
    if refused in {"q=0", "q=0.0", "q=0.00", "q=0.000"}:
        raise UnacceptableError(f"no acceptable encoding found: {header}")
