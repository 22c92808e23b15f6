"""Work on many items that is done by a few threads a little ahead of who takes the results."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")
R = TypeVar("R")

_THREADS = min(4, os.cpu_count() or 1)


class Ahead(Generic[T, R]):
    """The results of `function` for each of `items`, in their order.

    The first `width` are begun at once and as many are kept ready: that bounds the memory that
    they take. Iterating raises what `function` raised. After the block nothing runs any more.
    """

    def __init__(self, function: Callable[[T], R], items: Iterable[T], width: int) -> None:
        self._function = function
        self._items = iter(items)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="emberbox-ahead")
        self._begun: deque[Future[R]] = deque()
        for _ in range(width):
            self._begin_next()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[R]:
        while self._begun:
            result = self._begun.popleft().result()
            self._begin_next()
            yield result

    def _begin_next(self) -> None:
        for item in self._items:
            self._begun.append(self._pool.submit(self._function, item))
            return
