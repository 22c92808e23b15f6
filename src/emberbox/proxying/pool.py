"""Idle upstream connections, kept for the next request of the same key."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emberbox.proxying.resolving import PoolKey
    from emberbox.proxying.upstream import UpstreamConnection

_TRUSTED = 0.5
"""Seconds for which an idle connection is taken to live unless the event loop heard otherwise."""


class Pool:
    """Keeps at most `per_key` connections of a key, each for `idle_timeout` seconds at most.

    The time must be shorter than the upstream's own, so that the upstream is seldom the one to
    close: a request that crosses its close on the way can only be repeated when it is safe to.
    """

    def __init__(self, idle_timeout: float, *, per_key: int = 256) -> None:
        self._idle_timeout = idle_timeout
        self._per_key = per_key
        self._idle: dict[PoolKey, list[UpstreamConnection]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, key: PoolKey) -> UpstreamConnection | None:
        """The connection used last that is still good."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            connection.shelf = None
            age = monotonic() - connection.idle_since
            # Asking the kernel about one just used would be a system call for each request.
            if age < _TRUSTED or (age < self._idle_timeout and connection.is_quiet()):
                return connection
            connection.abort()
        return None

    def put(self, key: PoolKey, connection: UpstreamConnection) -> None:
        """Keep a connection whose last answer is complete."""
        idle = self._idle.get(key)
        if idle is None:
            idle = self._idle[key] = []
        if len(idle) >= self._per_key:
            connection.close()
            return
        connection.answered = None
        connection.idle_since = monotonic()
        connection.shelf = idle
        idle.append(connection)
        if not connection.reading:
            connection.read_on(True)

    def sweep(self) -> None:
        """Close what has been idle for too long, and forget keys that have nothing."""
        oldest = monotonic() - self._idle_timeout
        for key, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.idle_since <= oldest]:
                idle.remove(connection)
                connection.shelf = None
                connection.close()
            if not idle:
                del self._idle[key]

    def drop(self, first: str) -> None:
        """Close the connections of every key that begins with `first`."""
        for key in [key for key in self._idle if key[0] == first]:
            for connection in self._idle.pop(key):
                connection.shelf = None
                connection.abort()

    def close(self) -> None:
        """Close everything."""
        for first in {key[0] for key in self._idle}:
            self.drop(first)
