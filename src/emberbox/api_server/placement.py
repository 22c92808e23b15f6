"""Which node takes a sandbox: what rules a node out, and which of the rest is the least used.

No I/O. Among all nodes that fit, a few are drawn by chance and the best of them is taken, so that
API servers that know the same do not all choose the same node at once (best of K).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emberbox.api_server.errors import NoCapacityError
from emberbox.api_server.full_hosts import full_of_promises, full_of_sandboxes
from emberbox.api_server.store.rows import NodeUsage
from emberbox.shared.labels import format_labels

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

    from emberbox.api_server.node import Node
    from emberbox.api_server.store.rows import NodeRecord, NodeTemplate

NOT_READY = "not ready: its images are being made"

_DRAWN = 3
_OVERCOMMIT = 4.0
"""vCPUs that a processor stands for; more than that is possible, and scores worse."""
_BUSY_WEIGHT = 0.5
"""How much a processor that is busy counts, beside those that are only promised."""


@dataclass(slots=True)
class PlacementRequest:
    """What a sandbox needs (MiB), and which nodes have refused it already, with their reasons."""

    template_id: str
    vcpu: int
    ram_mb: int
    disk_mb: int
    only_on: str | None = None
    """The one node that has the build."""
    built_in: bool = False
    """Only nodes that have the template will do."""
    labels: Mapping[str, str] = field(default_factory=dict)
    shared_with: str = ""
    """Only nodes that see these files will do; empty: any."""
    failed: int = 0
    """Nodes that have tried."""
    refusals: dict[str, str] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    """Nodes that would not do however empty they were, of those that were looked at last."""

    retry_after: int | None = None
    """Seconds after which the first of the nodes that said so may have room."""

    def refuse(self, name: str, reason: str, retry_after: int | None = None) -> None:
        """Remember why a node will not do; it is not picked again for this request."""
        self.refusals[name] = reason
        if retry_after is not None:
            self.retry_after = min(retry_after, self.retry_after or retry_after)

    def no_capacity(self, full: Mapping[str, str]) -> NoCapacityError:
        """The error that names every reason. `full`: nodes that fit and have no room now."""
        reasons = {**self.unfit, **full, **self.refusals}
        compatible = not reasons or bool(full) or bool(self.refusals)
        return NoCapacityError(sorted(reasons.items()), self.retry_after, compatible=compatible)


@dataclass(slots=True)
class Candidate:
    """A node as this API server knows it. `pending`: what it has placed since it read `usage`."""

    node: Node
    record: NodeRecord
    usage: NodeUsage = field(default_factory=NodeUsage)
    templates: Mapping[str, NodeTemplate] = field(default_factory=dict)
    silent: str | None = None
    """Since when nobody has heard of it, in words."""
    pending: NodeUsage = field(default_factory=NodeUsage)

    def add(self, request: PlacementRequest) -> None:
        """Count what was placed, until the records are read again."""
        one = self.pending
        self.pending = NodeUsage(
            one.sandboxes + 1, one.vcpu + request.vcpu, one.ram_mb + request.ram_mb
        )

    @property
    def sandboxes(self) -> int:
        """All that is known to be on it, or on its way."""
        return self.usage.sandboxes + self.pending.sandboxes

    @property
    def ram_mb(self) -> int:
        """Promised to them."""
        return self.usage.ram_mb + self.pending.ram_mb

    def score(self, request: PlacementRequest) -> float:
        """How used its scarcer resource would be; the lowest wins."""
        record = self.record
        vcpu = request.vcpu + self.usage.vcpu + self.pending.vcpu + _BUSY_WEIGHT * record.cpu_used
        return max(
            vcpu / (_OVERCOMMIT * max(record.cpu_count, 1)),
            (request.ram_mb + self.ram_mb) / max(record.max_ram_mb, 1),
        )


def unfit_reason(candidate: Candidate, request: PlacementRequest) -> str | None:
    """Why a node would not do however empty it was."""
    record = candidate.record
    if request.only_on not in (None, record.node_id):
        return f"the snapshot is on {request.only_on}"
    if request.shared_with and record.shared_directory != request.shared_with:
        return "it does not reach the files of the paused sandbox"
    missing = {
        name: value for name, value in request.labels.items() if record.labels.get(name) != value
    }
    if missing:
        return f"it has not the labels {format_labels(missing)}"
    if request.built_in and candidate.templates and request.template_id not in candidate.templates:
        return f"it does not have template {request.template_id}"
    return None


def full_reason(candidate: Candidate, request: PlacementRequest) -> str | None:
    """Why a node that fits takes nothing at this moment."""
    record = candidate.record
    if candidate.silent is not None:
        return candidate.silent
    if record.draining:
        return "it is draining"
    if not record.ready:
        return record.status or NOT_READY
    if candidate.sandboxes >= record.max_sandboxes:
        return full_of_sandboxes(candidate.sandboxes, record.max_sandboxes)
    if candidate.ram_mb + request.ram_mb > record.max_ram_mb:
        return full_of_promises(candidate.ram_mb, record.max_ram_mb)
    return None


def choose(
    candidates: Iterable[Candidate],
    request: PlacementRequest,
    full: dict[str, str],
    draw: random.Random,
) -> Candidate | None:
    """The best of a few that fit; None when none does, and then the reasons are in `full` and in
    the request."""
    request.unfit.clear()
    full.clear()
    fit = []
    for candidate in candidates:
        name = candidate.record.node_id
        if name in request.refusals:
            continue
        if (reason := unfit_reason(candidate, request)) is not None:
            request.unfit[name] = reason
        elif (reason := full_reason(candidate, request)) is not None:
            full[name] = reason
        else:
            fit.append(candidate)
    drawn = draw.sample(fit, min(_DRAWN, len(fit)))
    return min(drawn, key=lambda one: one.score(request), default=None)
