"""The options of `Sandbox.create` that say more than a number or a text. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, TypedDict

from .not_yet import refuse_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .network_models import SandboxNetworkOpts

SnapshotMode: TypeAlias = Literal["full", "filesystem"]
"""With the memory, or without: then it boots when it is started again."""


class SandboxOnTimeoutPause(TypedDict):
    """Pause the sandbox at its end time."""

    action: Literal["pause"]
    mode: NotRequired[SnapshotMode]
    keep_memory: NotRequired[bool]


class SandboxOnTimeoutKill(TypedDict):
    """Kill the sandbox at its end time."""

    action: Literal["kill"]


SandboxOnTimeout: TypeAlias = (
    Literal["pause", "kill"] | SandboxOnTimeoutPause | SandboxOnTimeoutKill
)


class SandboxLifecycle(TypedDict):
    """What happens to a sandbox at its end time and after."""

    on_timeout: SandboxOnTimeout
    auto_resume: NotRequired[bool]
    """Resume a paused sandbox when it is used."""


SandboxIamTokenType: TypeAlias = Literal["JWT-SVID"] | str  # noqa: PYI051 (what is known, and more)


class SandboxIamToken(TypedDict):
    """An identity token that the sandbox can use."""

    audience: str
    token_type: SandboxIamTokenType


class SandboxIamOpts(TypedDict, total=False):
    """The identity of a sandbox."""

    tokens: dict[str, SandboxIamToken]


class GitHubMcpServerConfig(TypedDict):
    """An MCP server that is built from a repository."""

    run_cmd: str
    install_cmd: NotRequired[str]
    envs: NotRequired[dict[str, str]]


GitHubMcpServer: TypeAlias = dict[str, GitHubMcpServerConfig | Any]
McpServer: TypeAlias = GitHubMcpServer
"""Servers and their settings by name."""


def network_body(owner: str, network: SandboxNetworkOpts | None) -> dict[str, object]:
    """The network in the body of a create.

    Raises NotSupportedYetException, in the name of `owner`, for a field that cannot be asked for.
    """
    public = "allow_public_traffic"
    fields: Mapping[str, object] = dict(network or {})
    rest = {f"network.{name}": value for name, value in fields.items() if name != public}
    refuse_options(owner, rest)
    allowed = fields.get(public)
    return {} if allowed is None else {"network": {"allowPublicTraffic": allowed}}


def check_lifecycle(owner: str, lifecycle: SandboxLifecycle | None) -> None:
    """Raises NotSupportedYetException for all but killing the sandbox at its end time."""
    if lifecycle is None:
        return
    wanted = lifecycle.get("on_timeout", "kill")
    action = wanted.get("action") if isinstance(wanted, dict) else wanted
    pauses = {"on_timeout": wanted} if action != "kill" else {}
    resumes = {"auto_resume": True} if lifecycle.get("auto_resume") else {}
    asked = {**pauses, **resumes}
    refuse_options(owner, {f"lifecycle.{name}": value for name, value in asked.items()})
