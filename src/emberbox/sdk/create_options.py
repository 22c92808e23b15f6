"""The options of `Sandbox.create` that say more than a number or a text. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, TypedDict

from .errors import InvalidArgumentException
from .not_yet import refuse_options
from .snapshot_models import SnapshotMode, keeps_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .network_models import SandboxNetworkOpts


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


def lifecycle_body(lifecycle: SandboxLifecycle | None) -> dict[str, object]:
    """The lifecycle in the body of a create; what was not chosen is left to the server.

    Raises InvalidArgumentException.
    """
    fields: Mapping[str, object] = dict(lifecycle or {})
    action, pause = _on_timeout(fields.get("on_timeout"))
    memory = keeps_memory('on_timeout["mode"]', pause.get("mode"), pause.get("keep_memory"))
    resume = fields.get("auto_resume")
    if resume and action != "pause":
        raise InvalidArgumentException("auto_resume needs on_timeout to be pause")
    if resume and memory is False:
        raise InvalidArgumentException(
            "auto_resume needs the memory: with mode filesystem, resume by connect()"
        )
    body: dict[str, object] = {}
    if action is not None:
        body["autoPause"] = action == "pause"
    if memory is not None:
        body["autoPauseMemory"] = memory
    if resume is not None:
        body["autoResume"] = {"enabled": bool(resume)}
    return body


def _on_timeout(wanted: object) -> tuple[object, Mapping[str, Any]]:
    """The action, and what goes with a pause. Raises InvalidArgumentException."""
    options: Mapping[str, Any] = wanted if isinstance(wanted, dict) else {}
    action = options.get("action") if isinstance(wanted, dict) else wanted
    if wanted is not None and action not in ("pause", "kill"):
        name = 'on_timeout["action"]' if isinstance(wanted, dict) else "on_timeout"
        raise InvalidArgumentException(f"{name} must be pause or kill, got {action!r}")
    if action != "pause" and options.keys() & {"mode", "keep_memory"}:
        raise InvalidArgumentException("mode goes with on_timeout action pause only")
    return action, options
