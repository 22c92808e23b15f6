"""One `emberbox up` for a program that needs it: the demo, the benchmarks and the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EMBERBOX = Path(sys.executable).with_name("emberbox")
STOP_SECONDS = 120.0
_HASTENED_SECONDS = 30.0


class NotReadyError(Exception):
    """`up` ended before all was ready; its last lines on stderr say why."""


@dataclass(frozen=True, slots=True)
class Up:
    """An `emberbox up` that is ready; `facts` is what its `--json` says."""

    process: subprocess.Popen[str]
    facts: dict[str, str]

    @classmethod
    def start(
        cls,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        stderr: IO[str] | None = None,
    ) -> Up:
        """Start it and wait until all is ready; whatever goes wrong, it does not go on running.

        Raises NotReadyError.
        """
        process = subprocess.Popen(
            [EMBERBOX, "up", "--json", *flags],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # Ctrl-C is for the program that started it, which then stops it in order.
            process_group=0,
        )
        try:
            return cls(process, _facts(process))
        except BaseException:
            end(process)
            raise

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as a person would; its exit status."""
        return end(self.process, number)

    @property
    def sdk(self) -> dict[str, Any]:
        """Options of the SDK that reach it."""
        return {name: self.facts[name] for name in ("api_key", "api_url", "sandbox_url")}

    @property
    def variables(self) -> dict[str, str]:
        """The same as the environment of a program that uses the SDK."""
        return {f"EMBERBOX_{name.upper()}": value for name, value in self.sdk.items()}


@contextmanager
def running(environment: Mapping[str, str] = os.environ) -> Iterator[Up]:
    """An `up` on the home and ports of the environment, stopped at the end of the block."""
    up = Up.start(environment=environment)
    try:
        yield up
    finally:
        up.stop()


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> int:
    """Ask it to stop, then to hasten, then kill it; the exit status."""
    for asked, patience in ((number, STOP_SECONDS), (signal.SIGINT, _HASTENED_SECONDS)):
        if process.poll() is None:
            process.send_signal(asked)
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.wait()


def _facts(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    with process.stdout as lines:
        line = lines.readline()
    if not line:
        raise NotReadyError("emberbox up did not get ready: its last lines say why")
    facts: dict[str, str] = json.loads(line)
    return facts
