"""Helper processes of ours: started apart from the orchestrator, recorded, and found again.

The data proxy's workers and the DNS forwarder serve sandboxes that outlive an orchestrator, so
they outlive it too. Guests and clients talk to them: they get neither the orchestrator's
environment nor a place to import from other than the installation.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from emberbox.orchestrator.processes import ProcessIdentity, identify, is_alive
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_KEPT_VARIABLES = ("PATH", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A helper that runs; `fits`: it was started as this version of Emberbox would start it."""

    process: ProcessIdentity
    fits: bool


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper: `python -m module arguments`. `record` names the process that runs, and `log`
    is appended to."""

    module: str
    arguments: tuple[str, ...]
    record: Path
    log: Path

    def start(self) -> ProcessIdentity:
        """Start and record it, in a session of its own and in the root directory.

        Raises ProcessLookupError when it ended at once, and OSError.
        """
        with open(self.log, "ab", opener=_private) as log:
            child = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        try:
            identity = identify(child.pid)
        except ProcessLookupError:
            child.wait()
            raise
        # It outlives this object on purpose; `wait_gone` reaps it.
        child.returncode = 0
        record = {"process": identity.to_json(), "started_as": self._started_as()}
        write_atomically(self.record, json.dumps(record).encode(), 0o600)
        return identity

    def recorded(self) -> Recorded | None:
        """The helper that an earlier start recorded, when it runs."""
        # A damaged record is like none: what it named is found by the port that it holds.
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            data = json.loads(self.record.read_bytes())
            identity = ProcessIdentity.from_json(data["process"])
            if is_alive(identity):
                return Recorded(identity, data.get("started_as") == self._started_as())
        return None

    def forget(self) -> None:
        """Remove the record."""
        self.record.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        # -P: no import from the directory that the orchestrator happens to be started in.
        return [sys.executable, "-P", "-m", self.module, *self.arguments]

    def _started_as(self) -> list[str]:
        return [version("emberbox"), *self._command()]


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
