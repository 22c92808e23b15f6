"""The options of `Sandbox.create` that say more than a number or a text. No I/O."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from .not_yet import refuse_options

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
