"""What the orchestrator is doing until it can take sandboxes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Readiness:
    """`status` is one line for people."""

    ready: bool = False
    status: str = "starting"

    def report(self, status: str) -> None:
        """Say what is being done."""
        self.status = status

    def done(self) -> None:
        """From now on sandboxes can be made."""
        self.ready = True
        self.status = "ready"
