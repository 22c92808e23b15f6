"""One watched directory on the event loop. While nothing happens, nothing runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from emberbox.envd.watching.changes import Changes

if TYPE_CHECKING:
    from emberbox.envd.users import User
    from emberbox.envd.watching.changes import Change, Options
    from emberbox.envd.workers import Workers


class Watch:
    """Changes are read by threads, with the rights of the user, when there are any.

    What is not taken waits in the kernel's queue, whose length bounds the memory.
    """

    def __init__(self, options: Options, user: User, workers: Workers) -> None:
        """Raises LimitReachedError."""
        self._changes = Changes(options, workers.users)
        self._user = user
        self._workers = workers
        self._stopped = False
        self._ready: asyncio.Future[bool] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self._stopped or self._changes.ended

    async def open(self) -> None:
        """Watch from now on. Raises EnvdError."""
        await self._workers.run_as(self._user, self._changes.open)

    async def take(self) -> list[Change] | None:
        """Some of what happened; None when there is nothing now. Raises EnvdError."""
        return await self._workers.run_as(self._user, self._changes.take)

    async def wait(self, timeout: float | None) -> bool:
        """Until there may be changes, at most `timeout` seconds; whether that was the reason."""
        if self.over or self._changes.pending:
            return not self.over
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        descriptor = self._changes.fileno()
        timer = None if timeout is None else loop.call_later(timeout, self._wake, False)
        # Only while we wait: events that nobody takes would call again and again.
        loop.add_reader(descriptor, self._wake, True)
        try:
            return await self._ready
        finally:
            loop.remove_reader(descriptor)
            if timer is not None:
                timer.cancel()
            self._ready = None

    def stop(self) -> None:
        """Nobody wants to know any more; `wait` returns."""
        self._stopped = True
        self._wake(False)

    def close(self) -> None:
        """Frees what the kernel holds."""
        self._stopped = True
        self._changes.close()

    def _wake(self, there_is_something: bool, /) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(there_is_something)
