"""process.Process: the calls of the protocol onto running processes."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing
from typing import TYPE_CHECKING

from protobuf import Oneof

from emberbox._gen.envd.process import process_connect
from emberbox._gen.envd.process.process_pb import (
    CloseStdinRequest,
    CloseStdinResponse,
    ConnectRequest,
    ConnectResponse,
    ListRequest,
    ListResponse,
    ProcessInfo,
    ProcessInput,
    ProcessSelector,
    SendInputRequest,
    SendInputResponse,
    SendSignalRequest,
    SendSignalResponse,
    Signal,
    StartRequest,
    StartResponse,
    StreamInputRequest,
    StreamInputResponse,
    UpdateRequest,
    UpdateResponse,
)
from emberbox.envd import rpc
from emberbox.envd.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LimitReachedError,
    UnimplementedError,
)
from emberbox.envd.events import keepalive_event, start_event
from emberbox.envd.paths import resolve
from emberbox.envd.processes import STALL_PATIENCE
from emberbox.envd.spawn import Plan, default_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from connectrpc.request import RequestContext

    from emberbox._gen.envd.process.process_pb import ProcessEvent
    from emberbox.envd.processes import Process, Processes
    from emberbox.envd.state import State
    from emberbox.envd.users import User, Users

_DEFAULT_SIZE = (80, 24)
_KEEPALIVE = keepalive_event()


class ProcessService(process_connect.Process):
    """Handlers; what a process is and does is in `processes`."""

    def __init__(self, processes: Processes, users: Users, state: State) -> None:
        self._processes = processes
        self._users = users
        self._state = state

    async def list(
        self, request: ListRequest, ctx: RequestContext[ListRequest, ListResponse], /
    ) -> ListResponse:
        return ListResponse(
            processes=[
                ProcessInfo(config=process.config, pid=process.pid, tag=process.tag)
                for process in self._processes
            ]
        )

    async def start(
        self, request: StartRequest, ctx: RequestContext[StartRequest, StartResponse], /
    ) -> AsyncGenerator[StartResponse]:
        time_limit = rpc.time_left(ctx)
        user = self._users.find(rpc.caller(ctx) or self._state.default_user)
        tag = request.tag if request.has_field("tag") else None
        plan = self._plan(request, user)
        assert request.process is not None  # noqa: S101 - _plan refuses it
        process = await self._processes.start(plan, request.process, tag)
        if time_limit is not None:
            process.limit_time(time_limit)
        # The limit ends the process, and that ends the stream; the second is for a process that
        # even SIGKILL does not end.
        patience = None if time_limit is None else time_limit + 1
        async with aclosing(_follow(process, rpc.keepalive_interval(ctx), patience)) as events:
            async for event in events:
                if event is process.end and process.expired:
                    raise DeadlineExceededError("the process was killed at its time limit")
                yield StartResponse(event=event)

    async def connect(
        self, request: ConnectRequest, ctx: RequestContext[ConnectRequest, ConnectResponse], /
    ) -> AsyncGenerator[ConnectResponse]:
        process = self._selected(request.process, self._processes.find)
        keepalive, time_limit = rpc.keepalive_interval(ctx), rpc.time_left(ctx)
        async with aclosing(_follow(process, keepalive, time_limit)) as events:
            async for event in events:
                yield ConnectResponse(event=event)

    async def update(
        self, request: UpdateRequest, ctx: RequestContext[UpdateRequest, UpdateResponse], /
    ) -> UpdateResponse:
        process = self._selected(request.process)
        if request.pty is None or request.pty.size is None:
            raise InvalidArgumentError("field 'pty.size' is missing")
        process.resize(*_size(request.pty.size.cols, request.pty.size.rows))
        return UpdateResponse()

    async def send_input(
        self, request: SendInputRequest, ctx: RequestContext[SendInputRequest, SendInputResponse], /
    ) -> SendInputResponse:
        process = self._selected(request.process)
        async with rpc.limited(ctx):
            await _write(process, request.input)
        return SendInputResponse()

    async def stream_input(
        self,
        request: AsyncIterator[StreamInputRequest],
        ctx: RequestContext[StreamInputRequest, StreamInputResponse],
        /,
    ) -> StreamInputResponse:
        process = None
        async with rpc.limited(ctx):
            async for message in request:
                event = message.event.value if message.event else None
                if isinstance(event, StreamInputRequest.StartEvent):
                    process = self._selected(event.process)
                elif isinstance(event, StreamInputRequest.DataEvent):
                    if process is None:
                        raise InvalidArgumentError("the first message must be 'start'")
                    await _write(process, event.input)
        return StreamInputResponse()

    async def send_signal(
        self,
        request: SendSignalRequest,
        ctx: RequestContext[SendSignalRequest, SendSignalResponse],
        /,
    ) -> SendSignalResponse:
        process = self._selected(request.process)
        if request.signal is Signal.SIGKILL:
            await process.kill()
        elif request.signal is Signal.SIGTERM:
            process.send_signal(signal.SIGTERM)
        else:
            raise UnimplementedError("only SIGNAL_SIGTERM and SIGNAL_SIGKILL can be sent")
        return SendSignalResponse()

    async def close_stdin(
        self,
        request: CloseStdinRequest,
        ctx: RequestContext[CloseStdinRequest, CloseStdinResponse],
        /,
    ) -> CloseStdinResponse:
        process = self._selected(request.process)
        if process.has_terminal:
            raise InvalidArgumentError("a pty has no stdin to close: send it Ctrl-D (0x04)")
        process.close_stdin()
        return CloseStdinResponse()

    def _selected(
        self, selector: ProcessSelector | None, find: Callable[..., Process] | None = None
    ) -> Process:
        find = find or self._processes.find_running
        match selector.selector if selector else None:
            case Oneof(field="pid", value=int(pid)):
                return find(pid=pid)
            case Oneof(field="tag", value=str(tag)):
                return find(tag=tag)
        raise InvalidArgumentError("field 'process' needs a pid or a tag")

    def _plan(self, request: StartRequest, user: User) -> Plan:
        config = request.process
        if config is None or not config.cmd:
            raise InvalidArgumentError("field 'process.cmd' is missing")
        account = {
            "PATH": default_path(),
            "HOME": user.home,
            "USER": user.name,
            "LOGNAME": user.name,
        }
        terminal = None
        if request.pty is not None:
            size = request.pty.size
            terminal = _size(size.cols, size.rows) if size else _DEFAULT_SIZE
        return Plan(
            argv=[config.cmd, *config.args],
            user=user,
            cwd=resolve(config.cwd, user, self._state.default_workdir),
            env=account | self._state.environment() | dict(config.envs),
            stdin=request.stdin if request.has_field("stdin") else True,
            terminal=terminal,
        )


def _size(columns: int, rows: int) -> tuple[int, int]:
    if max(columns, rows) > 0xFFFF:
        raise InvalidArgumentError("a terminal has at most 65535 columns and rows")
    return columns or _DEFAULT_SIZE[0], rows or _DEFAULT_SIZE[1]


async def _write(process: Process, given: ProcessInput | None) -> None:
    match given.input if given else None:
        case Oneof(field=field, value=bytes(data)):
            await process.write(data, terminal=field == "pty")
        case _:
            raise InvalidArgumentError("field 'input' needs stdin or pty")


async def _follow(
    process: Process, keepalive: float, time_limit: float | None
) -> AsyncGenerator[ProcessEvent]:
    """Start, all output from now on, end. Ends early when the client goes.

    Raises DeadlineExceededError when the client's time is over before the process is.
    """
    now = asyncio.get_running_loop().time
    deadline = float("inf") if time_limit is None else now() + time_limit
    listener = process.listen()
    rpc.current_disconnect().notify(listener.close)
    try:
        yield start_event(process.pid)
        while True:
            event = await listener.next(min(keepalive, max(deadline - now(), 0)))
            if listener.left_behind:
                raise LimitReachedError(
                    f"the client read nothing for {STALL_PATIENCE:.0f} s while others of the"
                    " process waited for it: connect again"
                )
            if listener.closed:
                return
            if now() >= deadline and process.end is None:
                raise DeadlineExceededError("the time limit of the call is over")
            if event is not None and event is process.end:
                rpc.last_message_follows()
                yield event
                return
            yield event or _KEEPALIVE
    finally:
        process.forget(listener)
