"""What a snapshot of a paused sandbox records."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.network.policy import recorded_policy

if TYPE_CHECKING:
    from emberbox.orchestrator.network.policy import EgressPolicy


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One paused sandbox.

    execution_id is the run that was paused, paused_at in unix seconds. memory says whether it
    can go on where it was; without, it boots from its files, and lost says why when it had one.
    based: its memory is only whole with the snapshot of its template build.
    images maps the kind of each image it ran on to its hash. Sizes are in bytes on disk.
    """

    sandbox_id: str
    execution_id: str
    template_id: str
    build_id: str
    vcpu: int
    ram_mb: int
    disk_mb: int
    driver: str
    accelerator: str
    made_with: str
    images: dict[str, str]
    envd_version: str
    egress: EgressPolicy
    paused_at: float
    memory: bool
    based: bool
    memory_bytes: int
    disk_bytes: int
    lost: str = ""
    traffic_token: str | None = field(default=None, repr=False)
    envd_token: str | None = field(default=None, repr=False)
    env_vars: dict[str, str] = field(default_factory=dict, repr=False)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def hardware(self) -> Hardware:
        """Its size."""
        return Hardware(self.vcpu, self.ram_mb)

    def to_json(self) -> bytes:
        """The form on disk."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.dumps({**data, "egress": self.egress.to_json()}, indent=2).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Snapshot:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError on anything else.

        Fields that this version does not know are left out: a newer one may have written it.
        """
        raw: dict[str, Any] = json.loads(text)
        egress = recorded_policy(raw)
        names = {f.name for f in dataclasses.fields(cls)}
        known = {name: value for name, value in raw.items() if name in names}
        return cls(**known, egress=egress)
