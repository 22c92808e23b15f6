"""`$EMBERBOX_HOME/up.json`: which `up` runs here and which processes it started.

Its lock is held on a file beside it for as long as `up` lives, so the kernel releases it on
SIGKILL and the next `up` knows that what is recorded has no supervisor any more.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emberbox.cli.processes import stop
from emberbox.orchestrator.processes import ProcessIdentity, identify, is_alive
from emberbox.shared.errors import StartupError
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(slots=True)
class UpFile:
    """The record of one `up`; every change is on disk before the call returns."""

    path: Path
    _programs: dict[str, ProcessIdentity] = field(default_factory=dict)
    _lock: int | None = None

    def lock(self) -> None:
        """Become the only `up` of this home. Raises StartupError when there is another."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock_path = self.path.with_suffix(".lock")
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StartupError(self._taken()) from None
        self._lock = fd

    def running(self) -> int | None:
        """Pid of the `up` of this home; None when there is none."""
        up = self._record().get("up")
        if up is None:
            return None
        identity = ProcessIdentity.from_json(up)
        return identity.pid if is_alive(identity) else None

    def release(self) -> None:
        """Let the next `up` in; the record stays if programs of ours still run."""
        if self._lock is None:
            return
        if not self._programs:
            self.path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def stop_leftovers(self, say: Callable[[str], None], patience: float = 15.0) -> None:
        """End the programs that a dead `up` left running; call with the lock held.

        SIGTERM leaves their VMs alone. `patience` in seconds for each before SIGKILL.
        """
        for name, identity in self._read().items():
            if is_alive(identity):
                say(f"stopping {name} (pid {identity.pid}) that an earlier up left running")
                stop(identity, patience)

    def started(self, name: str, pid: int) -> None:
        """Record a process of ours."""
        try:
            self._programs[name] = identify(pid)
        except ProcessLookupError:
            return  # it ended already: there is nothing to take over
        self._write()

    def ended(self, name: str) -> None:
        """Forget a process that ended."""
        if self._programs.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        record = {
            "up": identify(os.getpid()).to_json(),
            "programs": {name: identity.to_json() for name, identity in self._programs.items()},
        }
        write_atomically(self.path, json.dumps(record, indent=1).encode(), 0o600)

    def _read(self) -> dict[str, ProcessIdentity]:
        programs = self._record().get("programs", {})
        return {name: ProcessIdentity.from_json(fields) for name, fields in programs.items()}

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return record

    def _taken(self) -> str:
        home = self.path.parent
        pid = self.running()
        if pid is None:  # it has the lock but started nothing yet, or is about to leave
            return f"another emberbox up starts or ends on {home}: try again or pass --home"
        return f"emberbox up already runs on {home} (pid {pid}): stop it or pass --home"
