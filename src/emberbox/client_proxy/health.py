"""`GET /health` for load balancers and `GET /metrics` for Prometheus, on a port of their own: the
main one only forwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.proxying.metrics import exposition
from emberbox.proxying.replies import Reply

if TYPE_CHECKING:
    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.metrics import Collector
    from emberbox.proxying.resolving import Target


class HealthResolver:
    """Answers instead of forwarding. While draining it answers 503, so that traffic moves on."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.draining = False

    def resolve(self, request: RequestHead, peer: str) -> Reply:
        """200 for /health while the proxy serves."""
        path = request.target.partition(b"?")[0]
        if path == b"/metrics":
            return exposition(self._collector)
        if path != b"/health":
            return Reply(404, {"message": "Only /health and /metrics are here", "code": 404})
        if self.draining:
            return Reply(503, {"status": "draining"})
        return Reply(200, {"status": "ok"})

    def unreachable(self, target: Target) -> Reply:
        """Nothing is forwarded, so nothing can fail."""
        raise NotImplementedError(target)
