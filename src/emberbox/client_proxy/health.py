"""`GET /health` for load balancers, on a port of its own: the main one only forwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.proxying.replies import Reply

if TYPE_CHECKING:
    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.resolving import Target


class HealthResolver:
    """Answers instead of forwarding. While draining it answers 503, so that traffic moves on."""

    def __init__(self) -> None:
        self.draining = False

    def resolve(self, request: RequestHead, peer: str) -> Reply:
        """200 for /health while the proxy serves."""
        if request.target.partition(b"?")[0] != b"/health":
            return Reply(404, {"message": "Only /health is here", "code": 404})
        if self.draining:
            return Reply(503, {"status": "draining"})
        return Reply(200, {"status": "ok"})

    def unreachable(self, target: Target) -> Reply:
        """Nothing is forwarded, so nothing can fail."""
        raise NotImplementedError(target)
