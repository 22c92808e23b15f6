"""filesystem.Filesystem. Every call acts with the rights of the user it names."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal, TypeVar

from protobuf import Oneof

from emberbox._gen.envd.filesystem import filesystem_connect
from emberbox._gen.envd.filesystem.filesystem_pb import (
    CreateWatcherRequest,
    CreateWatcherResponse,
    EntryInfo,
    GetWatcherEventsRequest,
    GetWatcherEventsResponse,
    ListDirRequest,
    ListDirResponse,
    MakeDirRequest,
    MakeDirResponse,
    MoveRequest,
    MoveResponse,
    RemoveRequest,
    RemoveResponse,
    RemoveWatcherRequest,
    RemoveWatcherResponse,
    StatRequest,
    StatResponse,
    WatchDirRequest,
    WatchDirResponse,
)
from emberbox.envd import entries, rpc, tree
from emberbox.envd.errors import DeadlineExceededError, InvalidArgumentError, LimitReachedError
from emberbox.envd.paths import resolve
from emberbox.envd.watching.changes import Options
from emberbox.envd.watching.watchers import Watchers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from connectrpc.request import RequestContext

    from emberbox._gen.envd.filesystem.filesystem_pb import FilesystemEvent
    from emberbox.envd.state import State
    from emberbox.envd.users import User, Users
    from emberbox.envd.watching.watch import Watch
    from emberbox.envd.workers import Workers

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_MAX_LISTED = 100_000
"""Entries of one answer, which is made in memory: beyond it envd itself would be in danger."""

_STARTED: Oneof[Literal["start"], WatchDirResponse.StartEvent]
_STARTED = Oneof("start", WatchDirResponse.StartEvent())
_KEEPALIVE: Oneof[Literal["keepalive"], WatchDirResponse.KeepAlive]
_KEEPALIVE = Oneof("keepalive", WatchDirResponse.KeepAlive())


class FilesystemService(filesystem_connect.Filesystem):
    """Handlers; how directories are watched is in `watching`."""

    def __init__(self, state: State, workers: Workers) -> None:
        self._state = state
        self._workers = workers
        self._watchers = Watchers(workers)

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

    async def watch_dir(
        self, request: WatchDirRequest, ctx: RequestContext[WatchDirRequest, WatchDirResponse], /
    ) -> AsyncGenerator[WatchDirResponse]:
        user = self._user(ctx)
        keepalive, time_limit = rpc.keepalive_interval(ctx), rpc.time_left(ctx)
        async with self._watchers.stream(self._options(request, user), user) as watch:
            rpc.current_disconnect().notify(watch.stop)
            async with aclosing(_follow(watch, keepalive, time_limit)) as messages:
                async for message in messages:
                    yield message

    async def create_watcher(
        self,
        request: CreateWatcherRequest,
        ctx: RequestContext[CreateWatcherRequest, CreateWatcherResponse],
        /,
    ) -> CreateWatcherResponse:
        user = self._user(ctx)
        watcher_id = await self._watchers.create(self._options(request, user), user)
        return CreateWatcherResponse(watcher_id=watcher_id)

    async def get_watcher_events(
        self,
        request: GetWatcherEventsRequest,
        ctx: RequestContext[GetWatcherEventsRequest, GetWatcherEventsResponse],
        /,
    ) -> GetWatcherEventsResponse:
        changes = await self._watchers.drain(request.watcher_id)
        return GetWatcherEventsResponse(events=[change.message() for change in changes])

    async def remove_watcher(
        self,
        request: RemoveWatcherRequest,
        ctx: RequestContext[RemoveWatcherRequest, RemoveWatcherResponse],
        /,
    ) -> RemoveWatcherResponse:
        await self._watchers.remove(request.watcher_id)
        return RemoveWatcherResponse()

    def _options(self, request: WatchDirRequest | CreateWatcherRequest, user: User) -> Options:
        return Options(
            self._path(request.path, user),
            recursive=request.recursive,
            include_entry=request.include_entry,
            allow_network_mounts=request.allow_network_mounts,
        )

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
    found: list[EntryInfo] = []
    try:
        for each in entries.walk(path, depth):
            if entry := _describe_if_there(each, users):
                found.append(entry)
            if len(found) > _MAX_LISTED:
                raise LimitReachedError(
                    f"there are more than {_MAX_LISTED} entries below '{path}': list fewer levels"
                )
    except NotADirectoryError as error:
        if os.path.lexists(path):
            raise InvalidArgumentError(f"path '{path}' is not a directory") from error
        raise
    return found


def _describe_if_there(path: str, users: Users) -> EntryInfo | None:
    try:
        return entries.describe(path, users)
    except (FileNotFoundError, NotADirectoryError):  # removed meanwhile
        return None
    except OSError:
        return entries.unreadable(path)


async def _follow(
    watch: Watch, keepalive: float, time_limit: float | None
) -> AsyncGenerator[WatchDirResponse]:
    """Start and all changes. Ends when the client or the watched directory goes.

    Raises DeadlineExceededError when the client's time is over.
    """
    now = asyncio.get_running_loop().time
    deadline = float("inf") if time_limit is None else now() + time_limit
    yield WatchDirResponse(event=_STARTED)
    while True:
        there_is_something = await watch.wait(min(keepalive, max(deadline - now(), 0)))
        if watch.over:
            return
        if now() >= deadline:
            raise DeadlineExceededError("the time limit of the watch is over")
        if not there_is_something:
            yield WatchDirResponse(event=_KEEPALIVE)
            continue
        for change in await watch.take() or ():
            event: Oneof[Literal["filesystem"], FilesystemEvent]
            event = Oneof("filesystem", change.message())
            yield WatchDirResponse(event=event)
