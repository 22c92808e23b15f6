"""What a node is told about a sandbox."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.api_server.store.rows import Sandbox
    from emberbox.api_server.tokens import SandboxTokens

CLUSTER_METADATA = "emberbox.cluster_id"
"""Key that the API adds to a sandbox's metadata on its node: who may end it as an orphan."""


@dataclass(frozen=True, slots=True)
class Configurer:
    """Adds to a record what is derived: tokens, and the cluster it belongs to."""

    tokens: SandboxTokens
    cluster_id: str

    def created(self, row: Sandbox, env_vars: Mapping[str, str]) -> pb.SandboxConfig:
        """For a new sandbox."""
        config = pb.SandboxConfig(
            template_id=row.template_id,
            build_id=row.build_id,
            sandbox_id=row.sandbox_id,
            env_vars=env_vars,
            metadata={**row.metadata, CLUSTER_METADATA: self.cluster_id},
            envd_access_token=self.tokens.envd(row.sandbox_id) if row.secure else "",
            execution_id=row.execution_id,
            allow_internet_access=row.allow_internet_access is not False,
            auto_pause=row.auto_pause,
            auto_pause_filesystem_only=row.auto_pause and not row.auto_pause_memory,
            queue_group=_opaque(row.team_id),
        )
        if not row.public_traffic:
            config.traffic_access_token = self.tokens.traffic(row.sandbox_id)
        return config

    def resumed(self, row: Sandbox) -> pb.SandboxConfig:
        """For one that is paused there. Its environment is nowhere but in its snapshot: it holds
        secrets."""
        config = self.created(row, {})
        config.snapshot = True
        return config


def _opaque(team_id: str) -> str:
    """Nodes know no teams: they need to tell two apart, no more."""
    return hashlib.sha256(team_id.encode()).hexdigest()[:16]
