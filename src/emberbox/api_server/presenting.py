"""Records as the bodies that clients read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from emberbox.api_server.errors import ApiError
from emberbox.api_server.models import (
    ErrorBody,
    Lifecycle,
    ListedSandbox,
    NetworkAnswer,
    SandboxAnswer,
    SandboxDetail,
    SandboxForkResult,
)
from emberbox.api_server.networks import network_of
from emberbox.api_server.records.lifecycle import SHOWN_PAUSED, SHOWN_RUNNING, State
from emberbox.shared.protocol import CLIENT_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Literal

    from emberbox.api_server.models import PauseMode
    from emberbox.api_server.store.rows import Sandbox
    from emberbox.api_server.tokens import SandboxTokens


class _Listed(TypedDict):
    unreachable_since: datetime | None
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
    silent_since: Callable[[str], datetime | None]
    """When a node was heard last that is unreachable now."""

    def answer(self, row: Sandbox) -> SandboxAnswer:
        """For create and connect: the same tokens each time."""
        return SandboxAnswer(
            template_id=_template_id(row),
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
            **self._listed(row),
            envd_access_token=self._envd_token(row),
            domain=self.domain,
            allow_internet_access=row.allow_internet_access,
            network=_network(row),
            lifecycle=Lifecycle(
                auto_resume=row.auto_resume, on_timeout="pause" if row.auto_pause else "kill"
            ),
            pause_mode=_pause_mode(row),
            notice=row.notice,
        )

    def listed(self, row: Sandbox) -> ListedSandbox:
        """For lists: without secrets."""
        return ListedSandbox(**self._listed(row))

    def fork_result(self, child: Sandbox | ApiError) -> SandboxForkResult:
        """For one child."""
        if isinstance(child, ApiError):
            error = ErrorBody(code=child.status, message=child.message, error_code=child.error_code)
            return SandboxForkResult(error=error)
        return SandboxForkResult(sandbox=self.answer(child))

    def _listed(self, row: Sandbox) -> _Listed:
        return {
            "template_id": _template_id(row),
            "sandbox_id": row.sandbox_id,
            "client_id": CLIENT_ID,
            "started_at": row.started_at,
            "end_at": _end_at(row),
            "cpu_count": row.vcpu,
            "memory_mb": row.ram_mb,
            "disk_size_mb": row.disk_mb,
            "state": "paused" if row.state in SHOWN_PAUSED else "running",
            "envd_version": row.envd_version,
            "alias": row.template_name,
            "metadata": dict(row.metadata),
            "unreachable_since": (
                self.silent_since(row.node_id) if row.state in SHOWN_RUNNING else None
            ),
        }

    def _envd_token(self, row: Sandbox) -> str | None:
        return self.tokens.envd(row.sandbox_id) if row.secure else None


def _network(row: Sandbox) -> NetworkAnswer:
    network = network_of(row.options)
    return NetworkAnswer(
        allow_public_traffic=row.public_traffic,
        allow_out=network.allow_out,
        deny_out=network.deny_out,
        dns_servers=network.dns_servers,
        mask_request_host=network.mask_request_host,
        https_ports=network.https_ports,
    )


def _template_id(row: Sandbox) -> str:
    return row.shown_template_id or row.template_id


def _end_at(row: Sandbox) -> datetime:
    """While it is being paused its deadline is the best that is known."""
    return row.paused_at if row.state is State.PAUSED and row.paused_at else row.end_at


def _pause_mode(row: Sandbox) -> PauseMode | None:
    if row.state is not State.PAUSED:
        return None
    return "filesystem" if row.boots_when_resumed else "full"
