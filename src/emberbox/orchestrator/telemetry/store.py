"""The files of all sandboxes' metrics and logs on this host, and how long they stay."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.telemetry.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_METRICS_BYTES = 1024 * 1024
"""Of one sandbox: half a day of samples at least, at one in ten seconds."""

_SANDBOX_ID = re.compile(r"[a-z0-9]{1,63}")
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long, and of how many sandboxes, logs stay after the end; `log_bytes` of each."""

    days: float = 7
    sandboxes: int = 1000
    log_bytes: int = 64 * 1024


class TelemetryStore:
    """One directory for each sandbox, beside the run directories: it outlives them."""

    def __init__(self, root: Path, retention: Retention) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root
        self._retention = retention

    def metrics(self, sandbox_id: str) -> Journal:
        """The samples of a sandbox."""
        return Journal(self._root / sandbox_id / "metrics", _METRICS_BYTES)

    def log(self, sandbox_id: str) -> Journal:
        """The log of a sandbox."""
        return Journal(self._root / sandbox_id / "log", self._retention.log_bytes)

    def knows(self, sandbox_id: str) -> bool:
        """Whether there is anything of a sandbox of this id, which may be any text."""
        return bool(_SANDBOX_ID.fullmatch(sandbox_id)) and (self._root / sandbox_id).is_dir()

    def sweep(self, live: Collection[str]) -> None:
        """Remove what is left of sandboxes that ended too long ago, or before too many others.

        `live` may change meanwhile: who is in it when its turn comes is left alone.
        """
        ended = [path for path in self._root.iterdir() if path.name not in live]
        # The last thing written is the end; its rename or creation touches the directory only.
        ended.sort(key=_written, reverse=True)
        oldest = time.time() - self._retention.days * _DAY
        for place, directory in enumerate(ended):
            too_old = place >= self._retention.sandboxes or _written(directory) < oldest
            if too_old and directory.name not in live:
                shutil.rmtree(directory, ignore_errors=True)


def _written(directory: Path) -> float:
    try:
        return max((file.stat().st_mtime for file in directory.iterdir()), default=0.0)
    except OSError:
        return 0.0
