"""What is raised when git fails, without the passwords that it was given. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command_models import CommandExitException
from .errors import GitAuthException, GitUpstreamException

if TYPE_CHECKING:
    from .git_credentials import Access

# Lower case; what git and the usual servers say, with messages in English.
_REFUSALS = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "invalid username or password",
    "access denied",
    "not authorized",
    "the requested url returned error: 403",
    "permission denied (",  # of ssh; a directory that may not be written is something else
)
_NO_UPSTREAM = (
    "no upstream branch",
    "no upstream configured",
    "no tracking information",
    "not currently on a branch",
)


def explain(operation: str, failure: CommandExitException, used: Access) -> Exception:
    """What to raise for a failed clone, push or pull; no text of it holds the password."""
    said = used.redact(f"{failure.stderr}\n{failure.stdout}").strip()
    lowered = said.lower()
    if any(text in lowered for text in _REFUSALS):
        remedy = "check username and password" if used.credentials else "pass username and password"
        return GitAuthException(f"git {operation} was refused, {remedy}: {said}")
    if operation != "clone" and any(text in lowered for text in _NO_UPSTREAM):
        return GitUpstreamException(
            f"git {operation} does not know which branch is meant: pass remote and branch;"
            f" push with set_upstream=True remembers them: {said}"
        )
    return redacted(failure, used)


def redacted(failure: CommandExitException, used: Access) -> CommandExitException:
    """The failure without the password."""
    return CommandExitException(
        stderr=used.redact(failure.stderr),
        stdout=used.redact(failure.stdout),
        exit_code=failure.exit_code,
        error=failure.error and used.redact(failure.error),
    )
