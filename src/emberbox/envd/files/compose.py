"""POST /files/compose: files put together into one, inside the guest."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from emberbox.envd.asgi import respond_json
from emberbox.envd.errors import InvalidArgumentError, NoSpaceError, from_os_error
from emberbox.envd.files.source import open_regular
from emberbox.envd.files.target import Target, described
from emberbox.envd.paths import resolve

if TYPE_CHECKING:
    from emberbox.envd.asgi import Request, Send
    from emberbox.envd.state import State
    from emberbox.envd.users import User
    from emberbox.envd.workers import Workers

_STEP = 1024 * 1024
"""Bytes that a thread reads or writes in one go."""


class Compositions:
    """The endpoint."""

    def __init__(self, state: State, workers: Workers) -> None:
        self._state = state
        self._workers = workers

    async def handle(self, request: Request, send: Send) -> None:
        """Answers with the description of the new file. Raises EnvdError."""
        body = await request.json()
        sources, destination = _sources(body), _text(body, "destination")
        if not destination:
            raise InvalidArgumentError("field 'destination' is missing")
        user = self._workers.users.find(_text(body, "username") or self._state.default_user)
        workdir = self._state.default_workdir
        paths = [resolve(source, user, workdir) for source in sources]
        path = resolve(destination, user, workdir)
        await self._compose(paths, path, user)
        await respond_json(send, 200, described(path, {}))

    async def _compose(self, sources: list[str], destination: str, user: User) -> None:
        # Beside and renamed: the destination may be one of the sources, and stays as it was when
        # a source is missing or the disk becomes full.
        final = await self._workers.run_as(user, _final_path, destination)
        directory, name = os.path.split(final)
        new = os.path.join(directory, f".{name[:100]}.{secrets.token_hex(8)}")  # noqa: PTH118
        try:
            async with Target(new, user, {}, self._workers) as target:
                for source in sources:
                    await self._append(target, source, user)
                await self._workers.run_as(user, _replace, final, new)
        except NoSpaceError as error:
            raise NoSpaceError(f"not enough disk space to write '{destination}'") from error

    async def _append(self, target: Target, source: str, user: User) -> None:
        given = await self._workers.run_as(user, open_regular, source)
        try:
            # What is appended to it meanwhile is left out; files of /proc have no size but an end.
            left = os.fstat(given).st_size or sys.maxsize
            while left and (piece := await self._read(given, min(left, _STEP), source)):
                await target.write(piece)
                left -= len(piece)
        finally:
            self._workers.close_later(given)

    async def _read(self, fd: int, size: int, path: str) -> bytes:
        try:
            return await self._workers.run(os.read, fd, size)
        except OSError as error:
            raise from_os_error(error, path) from error


def _final_path(destination: str) -> str:
    """Where a link leads. Raises InvalidArgumentError for what is no file."""
    path = os.path.realpath(destination)
    if os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113 - text in, text out
        raise InvalidArgumentError(f"path '{destination}' exists and is not a regular file")
    return path


def _replace(final: str, new: str) -> None:
    with suppress(OSError):  # there was none, or it is not the user's
        os.chmod(new, stat.S_IMODE(os.stat(final).st_mode) & 0o777)  # noqa: PTH101, PTH116
    os.rename(new, final)  # noqa: PTH104


def _sources(body: dict[str, object]) -> list[str]:
    given = body.get("source_paths")
    if not isinstance(given, list) or not given:
        raise InvalidArgumentError("field 'source_paths' must be a list of at least one path")
    for path in given:
        if not isinstance(path, str) or not path:
            raise InvalidArgumentError("every item of field 'source_paths' must be a path")
    return given


def _text(body: dict[str, object], name: str) -> str:
    given = body.get(name)
    if given is not None and not isinstance(given, str):
        raise InvalidArgumentError(f"field '{name}' must be text")
    return given or ""
