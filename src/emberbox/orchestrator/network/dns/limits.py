"""How much of the forwarder one client may take, and all together."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Limits:
    """The forwarder's bounds. Times in seconds, sizes in bytes."""

    query_bytes: int = 4096
    queries: int = 1024
    queries_per_client: int = 64
    connections: int = 256
    connections_per_client: int = 16
    attempt_s: float = 2.0
    """For one resolver; the guest's own resolver gives up after 5 s and asks again."""
    idle_s: float = 10.0


class Shares:
    """Counts what is in use, by client (an address stands for one sandbox)."""

    def __init__(self, total: int, per_client: int) -> None:
        self._total = total
        self._per_client = per_client
        self._used: Counter[str] = Counter()

    @contextlib.contextmanager
    def take(self, client: str) -> Iterator[bool]:
        """Hold one share while inside. False: there is none, and nothing is held."""
        if self._used.total() >= self._total or self._used[client] >= self._per_client:
            yield False
            return
        self._used[client] += 1
        try:
            yield True
        finally:
            self._used[client] -= 1
            if not self._used[client]:
                del self._used[client]
