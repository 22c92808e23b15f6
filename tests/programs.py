"""Single programs of Emberbox as a test starts and ends them."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.stack import EMBERBOX

if TYPE_CHECKING:
    from pathlib import Path

END_SECONDS = 30


@dataclass(slots=True)
class Program:
    """One server in the foreground of "its shell"; `before` is put before its command line."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    before: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its log is appended to."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, EMBERBOX.with_name(self.name), *self.arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        assert self.process is not None
        return self.process.wait(END_SECONDS)
