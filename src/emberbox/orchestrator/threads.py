"""Threads made for one call and never used again, and waiting for those of the event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def start(function: Callable[[], T], name: str) -> Future[T]:
    """Run `function` in a thread of its own, which does not keep the program from ending."""
    future: Future[T] = Future()
    # Running from the start: a waiter that is cancelled cannot take it away from the thread.
    future.set_running_or_notify_cancel()

    def body() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            future.set_exception(error)

    threading.Thread(target=body, name=name, daemon=True).start()
    return future


async def run_to_end(function: Callable[[], T]) -> T:
    """Run `function` in a thread of the event loop; when cancelled, only after it has ended.

    For work on what the caller is about to close or remove.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # nobody asks for it any more
        raise


async def all_to_end(*works: Awaitable[object]) -> None:
    """Wait until all have ended, one by one or together. Raises what the first failed with.

    When cancelled all are, and have ended too.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    for task in tasks:
        task.result()
