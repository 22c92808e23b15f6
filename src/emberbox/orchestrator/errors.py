"""Errors of the orchestrator.

OrchestratorError
├── AdmissionRefused      the host will not take one more sandbox; the message is the reason
├── MachineError          the VMM or the guest failed
│   ├── MachineGone       the VMM's process has ended
│   ├── GuestUnreachable  the VM runs but envd does not answer
│   └── SnapshotUnusable  a saved machine cannot be loaded: made by another VMM, or damaged
├── BadRequest            the caller's request cannot be meant
├── TemplateMissing       this host has no such template build
├── GuestUnhealthy        envd does not answer, and what was asked for wants that it does
├── BuildInUse            sandboxes, running or paused, stand on the template build
├── SandboxMissing        this host runs no such sandbox
├── RunConflict           the sandbox id lives with another execution id
└── NetworkError          see emberbox.orchestrator.network.errors
"""

from __future__ import annotations

import re

from emberbox.shared.errors import EmberboxError

_PANIC = re.compile(r"Kernel panic - not syncing: ([^\r\n]*)")
_LINES, _LINE = 20, 300
"""Of a console, which the guest fills as it likes."""


class OrchestratorError(EmberboxError):
    """Base of what the orchestrator raises."""


class AdmissionRefused(OrchestratorError):  # noqa: N818 - names what happened, like gRPC's status
    """The host refused one more sandbox before running out of something.

    `retry_after`: seconds after which there may be room, where that is known.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MachineError(OrchestratorError):
    """A VMM or its guest failed. `console` is the tail of what the guest printed, if known."""

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console

    def explain(self) -> str:
        """The message with the last lines of the guest's console below it, and what its kernel
        said when it panicked before them."""
        panic = _PANIC.search(self.console)
        said = f": kernel panic: {panic[1].strip()[:_LINE]}" if panic else ""
        lines = self.console.strip().splitlines()[-_LINES:]
        tail = "\n".join(line[:_LINE] for line in lines)
        return f"{self}{said}\nconsole:\n{tail}" if tail else str(self)


class MachineGone(MachineError):  # noqa: N818 - names what happened
    """The VMM's process has ended."""


class GuestUnreachable(MachineError):  # noqa: N818 - names what happened
    """The VM runs, but its envd does not answer in time."""


class SnapshotUnusable(MachineError):  # noqa: N818 - names what is the matter
    """A saved machine was made by another VMM than this host's, or is damaged.

    Trying again does not help; its disk is whole and can be booted.
    """


class BadRequest(OrchestratorError):  # noqa: N818 - names what happened, like gRPC's status
    """A field of the request cannot be meant; the message names it."""


class TemplateMissing(OrchestratorError):  # noqa: N818 - names what happened
    """No build of this template is on this host."""


class GuestUnhealthy(OrchestratorError):  # noqa: N818 - names what happened
    """The sandbox was to be paused only when its envd answers, and it does not."""


class BuildInUse(OrchestratorError):  # noqa: N818 - names what happened
    """A template build cannot be removed: a sandbox could not go on without it."""


class SandboxMissing(OrchestratorError):  # noqa: N818 - names what happened
    """No such sandbox runs on this host."""


class RunConflict(OrchestratorError):  # noqa: N818 - names what happened
    """The sandbox id is in use by another run (execution id)."""
