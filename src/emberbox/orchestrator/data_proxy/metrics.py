"""`GET /metrics` of the data proxy, on a port that the workers share: whichever is asked tells what
all of them have counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.proxying.counts import total
from emberbox.proxying.dialing import Dialer
from emberbox.proxying.engine import Engine
from emberbox.proxying.limits import Limits
from emberbox.proxying.metrics import Collector, exposition
from emberbox.proxying.pool import Pool
from emberbox.proxying.replies import Reply

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.resolving import Target

ROWS = "worker-{}.counts"


class MetricsResolver:
    """Answers instead of forwarding."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def resolve(self, request: RequestHead, peer: str) -> Reply:
        """The counts for /metrics."""
        if request.target.partition(b"?")[0] == b"/metrics":
            return exposition(self._collector)
        return Reply(404, {"message": "Only /metrics is here", "code": 404})

    def unreachable(self, target: Target) -> Reply:
        """Nothing is forwarded, so nothing can fail."""
        raise NotImplementedError(target)


def metrics_engine(directory: Path) -> Engine:
    """Tells the sum of the rows in the directory."""
    collector = Collector(lambda: total(directory.glob(ROWS.format("*"))), "emberbox_data_proxy")
    limits = Limits(connections=64)
    return Engine(MetricsResolver(collector), limits=limits, dialer=Dialer(limits), pool=Pool(1.0))
