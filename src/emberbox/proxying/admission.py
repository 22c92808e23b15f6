"""Which connections of clients are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.proxying import replies
from emberbox.proxying.addresses import network_of
from emberbox.proxying.counts import Count

if TYPE_CHECKING:
    from emberbox.proxying.counts import Counts
    from emberbox.proxying.limits import Limits
    from emberbox.proxying.replies import Reply

_ANSWERED = 256
"""Connections above the limit that are told so; others are closed without a word."""


class Admission:
    """Counts the connections of a process, and those of each client where that is limited."""

    def __init__(self, limits: Limits, counts: Counts) -> None:
        self._limits = limits
        self._counts = counts
        self._open = 0
        self._of_client: dict[str, int] = {}

    def enter(self, peer: str) -> Reply | None:
        """Count a connection; the answer to its first request when it is one too many."""
        self._open += 1
        self._counts[Count.ACCEPTED] += 1
        if self._open > self._limits.connections:
            self._counts[Count.FULL] += 1
            return replies.full()
        most = self._limits.per_client
        if not most:
            return None
        client = network_of(peer)
        self._of_client[client] = count = self._of_client.get(client, 0) + 1
        if count <= most:
            return None
        self._counts[Count.CLIENT_LIMIT] += 1
        return replies.too_many_of_client(most)

    @property
    def exhausted(self) -> bool:
        """Whether there are so many that a new one cannot even be answered."""
        return self._open > self._limits.connections + _ANSWERED

    def leave(self, peer: str) -> None:
        """Count the end of one that entered."""
        self._open -= 1
        self._counts[Count.CLOSED] += 1
        client = network_of(peer)
        count = self._of_client.get(client)
        if count is None:
            return
        if count > 1:
            self._of_client[client] = count - 1
        else:
            del self._of_client[client]
