"""Threads made for one call and never used again."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

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
