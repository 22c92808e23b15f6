"""Records as the bodies that clients read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from emberbox.api_server.models import (
    Lifecycle,
    ListedSandbox,
    NetworkAnswer,
    SandboxAnswer,
    SandboxDetail,
)
from emberbox.shared.protocol import CLIENT_ID

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Literal

    from emberbox.api_server.store.rows import Sandbox
    from emberbox.api_server.tokens import SandboxTokens


class _Listed(TypedDict):
    template_id: str
    sandbox_id: str
    client_id: str
    started_at: datetime
    end_at: datetime
    cpu_count: int
    memory_mb: int
    disk_size_mb: int
    state: Literal["running", "paused"]
    envd_version: str
    alias: str | None
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Presenter:
    """Adds to a record what is derived or configured: tokens and domain."""

    tokens: SandboxTokens
    domain: str | None

    def answer(self, row: Sandbox) -> SandboxAnswer:
        """For create and connect: the same tokens each time."""
        return SandboxAnswer(
            template_id=row.template_id,
            sandbox_id=row.sandbox_id,
            client_id=CLIENT_ID,
            envd_version=row.envd_version,
            alias=row.template_name,
            envd_access_token=self._envd_token(row),
            traffic_access_token=(
                None if row.public_traffic else self.tokens.traffic(row.sandbox_id)
            ),
            domain=self.domain,
        )

    def detail(self, row: Sandbox) -> SandboxDetail:
        """For one sandbox."""
        return SandboxDetail(
            **_listed(row),
            envd_access_token=self._envd_token(row),
            domain=self.domain,
            allow_internet_access=row.allow_internet_access,
            network=NetworkAnswer(allow_public_traffic=row.public_traffic),
            lifecycle=Lifecycle(auto_resume=False, on_timeout="kill"),
        )

    def listed(self, row: Sandbox) -> ListedSandbox:
        """For lists: without secrets."""
        return ListedSandbox(**_listed(row))

    def _envd_token(self, row: Sandbox) -> str | None:
        return self.tokens.envd(row.sandbox_id) if row.secure else None


def _listed(row: Sandbox) -> _Listed:
    return {
        "template_id": row.template_id,
        "sandbox_id": row.sandbox_id,
        "client_id": CLIENT_ID,
        "started_at": row.started_at,
        "end_at": row.end_at,
        "cpu_count": row.vcpu,
        "memory_mb": row.ram_mb,
        "disk_size_mb": row.disk_mb,
        "state": "running",
        "envd_version": row.envd_version,
        "alias": row.template_name,
        "metadata": dict(row.metadata),
    }
