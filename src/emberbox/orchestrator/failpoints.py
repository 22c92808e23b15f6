"""Named steps at which a test can make this program die or fail.

`EMBERBOX_FAILPOINTS` names a file; in production it is not set and nothing is ever read. The file
holds `<step>:crash` or `<step>:error`. It is removed before that happens, so it happens once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from emberbox.orchestrator.errors import MachineError

_FILE = os.environ.get("EMBERBOX_FAILPOINTS")

PAUSE_BEFORE_COMMIT = (
    "pause-begun",
    "pause-synced",
    "pause-stopped",
    "pause-saved",
    "pause-linked",
    "pause-described",
)
PAUSE_AFTER_COMMIT = (
    "pause-committed",
    "pause-unrouted",
    "pause-ended",
    "pause-released",
    "pause-reported",
)
RESUME_BEFORE_CONSUMED = (
    "resume-begun",
    "resume-linked",
    "resume-loaded",
    "resume-recorded",
)
RESUME_AFTER_CONSUMED = (
    "resume-consumed",
    "resume-continued",
    "resume-initialized",
    "resume-running",
    "resume-routed",
)

CLAIM = (
    "claim-written",
    "claim-moved",
    "claim-initialized",
)


def reach(step: str) -> None:
    """Die here by SIGKILL, or raise MachineError, when the file says so."""
    if _FILE is not None:
        _act(step, Path(_FILE))


def _act(step: str, file: Path) -> None:
    try:
        wanted, _, action = file.read_text().strip().partition(":")
    except FileNotFoundError:
        return
    if wanted != step:
        return
    file.unlink()
    if action == "error":
        raise MachineError(f"told to fail at {step}")
    os.kill(os.getpid(), signal.SIGKILL)
