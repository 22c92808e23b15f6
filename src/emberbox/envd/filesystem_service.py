"""filesystem.Filesystem. Every call acts with the rights of the user it names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from emberbox._gen.envd.filesystem import filesystem_connect
from emberbox._gen.envd.filesystem.filesystem_pb import (
    EntryInfo,
    ListDirRequest,
    ListDirResponse,
    MakeDirRequest,
    MakeDirResponse,
    MoveRequest,
    MoveResponse,
    RemoveRequest,
    RemoveResponse,
    StatRequest,
    StatResponse,
)
from emberbox.envd import entries, rpc, tree
from emberbox.envd.errors import InvalidArgumentError
from emberbox.envd.paths import resolve

if TYPE_CHECKING:
    from connectrpc.request import RequestContext

    from emberbox.envd.state import State
    from emberbox.envd.users import User, Users
    from emberbox.envd.workers import Workers

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class FilesystemService(filesystem_connect.Filesystem):
    """Handlers. Watching is answered `unimplemented` by the generated base class."""

    def __init__(self, state: State, workers: Workers) -> None:
        self._state = state
        self._workers = workers

    async def stat(
        self, request: StatRequest, ctx: RequestContext[StatRequest, StatResponse], /
    ) -> StatResponse:
        user = self._user(ctx)
        path = self._path(request.path, user)
        entry = await self._workers.run_as(user, entries.describe, path, self._workers.users)
        return StatResponse(entry=entry)

    async def make_dir(
        self, request: MakeDirRequest, ctx: RequestContext[MakeDirRequest, MakeDirResponse], /
    ) -> MakeDirResponse:
        user = self._user(ctx)
        path = self._path(request.path, user)
        entry = await self._workers.run_as(user, _make_dir, path, self._workers.users)
        return MakeDirResponse(entry=entry)

    async def move(
        self, request: MoveRequest, ctx: RequestContext[MoveRequest, MoveResponse], /
    ) -> MoveResponse:
        user = self._user(ctx)
        source = self._path(request.source, user)
        destination = self._path(request.destination, user)
        entry = await self._workers.run_as(user, _move, source, destination, self._workers.users)
        return MoveResponse(entry=entry)

    async def list_dir(
        self, request: ListDirRequest, ctx: RequestContext[ListDirRequest, ListDirResponse], /
    ) -> ListDirResponse:
        user = self._user(ctx)
        path = self._path(request.path, user)
        depth = max(request.depth, 1)
        found = await self._workers.run_as(user, _list_dir, path, depth, self._workers.users)
        return ListDirResponse(entries=found)

    async def remove(
        self, request: RemoveRequest, ctx: RequestContext[RemoveRequest, RemoveResponse], /
    ) -> RemoveResponse:
        user = self._user(ctx)
        await self._workers.run_as(user, tree.remove, self._path(request.path, user))
        return RemoveResponse()

    def _user(self, ctx: RequestContext[_Request, _Response]) -> User:
        return self._workers.users.find(rpc.caller(ctx) or self._state.default_user)

    def _path(self, path: str, user: User) -> str:
        return resolve(path, user, self._state.default_workdir)


def _make_dir(path: str, users: Users) -> EntryInfo:
    tree.make_new_directory(path)
    return entries.describe(path, users)


def _move(source: str, destination: str, users: Users) -> EntryInfo:
    tree.move(source, destination)
    return entries.describe(destination, users)


def _list_dir(path: str, depth: int, users: Users) -> list[EntryInfo]:
    try:
        paths = entries.walk(path, depth)
        return [entry for entry in (_describe_if_there(p, users) for p in paths) if entry]
    except NotADirectoryError as error:
        if os.path.lexists(path):
            raise InvalidArgumentError(f"path '{path}' is not a directory") from error
        raise


def _describe_if_there(path: str, users: Users) -> EntryInfo | None:
    try:
        return entries.describe(path, users)
    except FileNotFoundError:  # removed meanwhile
        return None
