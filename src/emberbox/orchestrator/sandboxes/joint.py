"""Work that is done once for all who wait for it."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Joint(Generic[T]):
    """The result of work that goes on whoever waits. The first result stays."""

    def __init__(self) -> None:
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> bool:
        """Whether there is a result."""
        return self._future.done()

    async def result(self) -> T:
        """Wait for it. Raises what the work failed with."""
        return await asyncio.shield(self._future)

    async def wait(self) -> None:
        """Return when there is a result, whatever it is."""
        await asyncio.wait({self._future})

    def succeed(self, value: T) -> None:
        """Give all who wait, and will, the value."""
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: Exception) -> None:
        """Raise the error at all who wait, and will."""
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # who asked may have gone: then nobody asks for it
