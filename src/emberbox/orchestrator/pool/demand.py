"""How many clones of a build are worth keeping: as many as were needed lately."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bounds of the pool.

    most, least:  ready clones of each build; with `most` 0 there is no pool
    at_once:      clones that are made at the same time
    idle_seconds: after so long in which one of them was never needed, one fewer is kept
    """

    most: int
    least: int
    at_once: int = 1
    idle_seconds: float = 300.0


@dataclass(slots=True)
class Demand:
    """How many clones of one build shall be ready: `target`. Times are seconds.

    It begins with the most, grows when somebody came and none was ready, and shrinks when there
    was always one left over.
    """

    sizes: Sizes
    since: float
    target: int = field(init=False)
    _lowest: int | None = None

    def __post_init__(self) -> None:
        self.target = self.sizes.most

    def asked(self, ready: int) -> None:
        """Somebody wants one while so many are ready."""
        self._saw(max(0, ready - 1))
        if ready == 0:
            self.target = min(self.sizes.most, self.target + 1)

    def looked(self, now: float, ready: int) -> None:
        """So many are ready at this time."""
        self._saw(ready)
        if now - self.since < self.sizes.idle_seconds:
            return
        if self._lowest:
            self.target = max(min(self.sizes.least, self.sizes.most), self.target - 1)
        self.since, self._lowest = now, None

    def _saw(self, ready: int) -> None:
        self._lowest = ready if self._lowest is None else min(self._lowest, ready)
