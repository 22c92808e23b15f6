"""Calls that everybody who asks for the same thing at once shares."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class JointCalls(Generic[Key, Result]):
    """One call for each key at a time; who comes while it goes on gets its result, or its error.

    A caller that goes away does not take the call with it.
    """

    def __init__(self) -> None:
        self._calls: dict[Key, asyncio.Task[Result]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    async def call(self, key: Key, work: Callable[[], Coroutine[None, None, Result]]) -> Result:
        """Begin `work`, or join what was begun under this key."""
        task = self._calls.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(work())
            self._calls[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End what goes on."""
        tasks = tuple(self._calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, key: Key, task: asyncio.Task[Result]) -> None:
        del self._calls[key]
        if not task.cancelled():
            task.exception()  # every caller may be gone: then nobody else looks at it
