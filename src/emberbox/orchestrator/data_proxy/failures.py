"""How many failed tries a worker answers as such: token buckets for each peer and for all."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.proxying.addresses import network_of

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Allowance:
    """`burst` at once, and `per_second` in the long run."""

    burst: float
    per_second: float


_PER_PEER = Allowance(burst=20, per_second=1)
_OVERALL = Allowance(burst=200, per_second=20)
_MOST_PEERS = 4096


class FailureLimit:
    """Counts failures. It remembers the `most_peers` that failed last; `clock` gives seconds."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        per_peer: Allowance = _PER_PEER,
        overall: Allowance = _OVERALL,
        most_peers: int = _MOST_PEERS,
    ) -> None:
        self._clock = clock
        self._per_peer = per_peer
        self._most_peers = most_peers
        self._overall = _Bucket(overall, clock())
        self._peers: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def failed(self, peer: str) -> int:
        """Count a failure of `peer`; 0, or the whole seconds that it must wait.

        A peer that is over its own limit takes nothing of what others may still do.
        """
        now = self._clock()
        bucket = self._bucket_of(network_of(peer), now)
        wait = max(bucket.wait(now), self._overall.wait(now))
        if wait > 0:
            return math.ceil(wait)
        bucket.take()
        self._overall.take()
        return 0

    def _bucket_of(self, peer: str, now: float) -> _Bucket:
        bucket = self._peers.get(peer)
        if bucket is None:
            bucket = self._peers[peer] = _Bucket(self._per_peer, now)
        self._peers.move_to_end(peer)
        if len(self._peers) > self._most_peers:
            self._peers.popitem(last=False)
        return bucket


class _Bucket:
    __slots__ = ("_allowance", "_left", "_since")

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._left = allowance.burst
        self._since = now

    def wait(self, now: float) -> float:
        """Refill; the seconds until one can be taken."""
        refilled = self._left + (now - self._since) * self._allowance.per_second
        self._left = min(self._allowance.burst, refilled)
        self._since = now
        return max(0.0, (1 - self._left) / self._allowance.per_second)

    def take(self) -> None:
        self._left -= 1
