"""How a build tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the steps of a build, in order, from the thread that builds."""

    def step(self, name: str, fraction: float | None) -> None:
        """`name` begins; `fraction` (0 to 1, None: unknown) of the whole build is done by then."""


class Silent:
    """A progress that nobody watches."""

    def step(self, name: str, fraction: float | None) -> None:
        """Drop the step."""
