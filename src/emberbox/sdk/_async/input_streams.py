"""Input in the order it is given: a handle with a task that sends while the program goes on.

The synchronous flavour sends what an iterable yields, and returns when all is written.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from emberbox.sdk.connect_protocol import KEEPALIVE_SECONDS
from emberbox.sdk.error_mapping import request_timed_out
from emberbox.sdk.errors import SandboxException
from emberbox.sdk.process_messages import (
    INPUT_STREAM_SECONDS,
    input_stream_data,
    input_stream_start,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Self

    from .processes import AsyncProcesses

QUEUED_PIECES = 16
"""What may wait to be sent; with pieces of 256 KiB that bounds memory to some megabytes."""


class TakesInputStream:
    """What `commands` and `pty` have in common: `stream_input`."""

    _processes: AsyncProcesses

    def stream_input(
        self, pid: int, *, timeout: float | None = INPUT_STREAM_SECONDS
    ) -> AsyncCommandInputHandle:
        """Open a stream of input, written in the order in which it is sent.

        `timeout` limits the whole stream, in seconds; 0 or None for no limit. Errors are raised
        by the handle: NotFoundException when there is no such process, TimeoutException after
        `timeout`, SandboxException when the process takes no input. What the sandbox refuses is
        heard at the end: `close` raises it.
        """
        return AsyncCommandInputHandle(self._processes, pid, timeout)


class AsyncCommandInputHandle:
    """A stream of input to a command or PTY; made by `stream_input`.

    As a context manager it is closed at the end of the block, and given up after an error or
    when closing is cancelled.
    """

    def __init__(self, processes: AsyncProcesses, pid: int, timeout: float | None) -> None:
        self._processes = processes
        self._pid = pid
        self._queue: asyncio.Queue[Mapping[str, object] | None] = asyncio.Queue(QUEUED_PIECES)
        self._sending = asyncio.Lock()
        self._closed = False
        self._end_is_queued = False
        self._failure: Exception | None = None
        self._task = asyncio.create_task(self._run(timeout or None))

    async def send(self, data: str | bytes) -> None:
        """Queue input; waits while the process is behind in reading its input.

        What is sent at the same time by others comes before or after it, not in between.

        Raises what has ended the stream, and SandboxException when it was closed.
        """
        if self._closed:
            raise SandboxException("the input stream is closed: open another with stream_input")
        async with self._sending:
            for message in input_stream_data(self._processes.kind, data):
                await self._put(message)

    async def close(self) -> None:
        """Wait until all input is written, and end the stream; the process's input stays open.

        Raises what has ended the stream before that. Can be called again.
        """
        self._closed = True
        async with self._sending:
            if not self._end_is_queued:
                await self._put(None)
                self._end_is_queued = True
        await asyncio.wait([self._task])
        self._raise_failure()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_more: object) -> None:
        try:
            if error is None:
                await self.close()
        finally:
            self._closed = True
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _put(self, message: Mapping[str, object] | None) -> None:
        self._raise_failure()
        putting = asyncio.ensure_future(self._queue.put(message))
        try:
            await asyncio.wait([putting, self._task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._task.cancelled():
            raise SandboxException("the input stream was given up")

    async def _run(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._processes.stream_input(self._messages(), timeout)
        except TimeoutError:
            self._failure = request_timed_out("timeout")
        except Exception as error:  # noqa: BLE001 (raised by `send` and `close`, whatever it is)
            self._failure = error

    async def _messages(self) -> AsyncIterator[Mapping[str, object]]:
        yield input_stream_start(self._pid)
        while (message := await self._next()) is not None:
            yield message

    async def _next(self) -> Mapping[str, object] | None:
        """What to send next, a keep-alive after a long silence; None at the end."""
        try:
            async with asyncio.timeout(KEEPALIVE_SECONDS):
                return await self._queue.get()
        except TimeoutError:
            return {"keepalive": {}}
