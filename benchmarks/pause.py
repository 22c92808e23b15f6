"""How long it takes to put a sandbox away and to have it back.

Asked of the orchestrator (`idle`, `dirty`):

    pause_ms         until its call is answered: the snapshot is on the disk, fsync included, and
                     all connections are reset; `saved` among the steps is without the latter
    resume_ms        from the call until the VM runs again
    resume_ready_ms  the same call until it is answered: envd has answered, traffic gets through

The same through SDK and API server, until they return: `sdk`. `dirty` holds so much more memory
that was written with random bytes, which no compression makes smaller; bytes is what its memory
takes on the disk. Between a resume and the next pause the sandbox has time to settle.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Clock, at_least_one, percentiles, progress
from benchmarks.host import HostSandbox, step
from benchmarks.stack import running
from emberbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb

_MIB = 1 << 20
_MOST_IN_SHM = 200
"""MiB: half of a guest's memory is the limit of its /dev/shm, a fifth that of its /run."""
_LIFE_SECONDS = 1800


@dataclass(slots=True)
class Series:
    """Times in milliseconds of pauses and resumes of one kind."""

    settle: float
    times: dict[str, list[float]] = field(default_factory=dict)
    steps: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    bytes: int = 0

    def round(self, sandbox: HostSandbox) -> None:
        """Away and back, asked of the orchestrator."""
        time.sleep(self.settle)
        clock = Clock()
        with clock.running():
            paused = sandbox.pause()
        self._add("pause_ms", clock.ms)
        self._add_steps("pause", paused.steps)
        self.bytes = paused.sandbox.memory_bytes
        time.sleep(self.settle)
        with clock.running():
            resumed = sandbox.resume()
        self._add("resume_ms", step("running", resumed.steps))
        self._add("resume_ready_ms", clock.ms)
        self._add_steps("resume", resumed.steps)

    def round_of_sdk(self, sandbox: Sandbox) -> None:
        """Away and back, as a user does."""
        time.sleep(self.settle)
        clock = Clock()
        with clock.running():
            sandbox.pause()
        self._add("pause_ms", clock.ms)
        time.sleep(self.settle)
        with clock.running():
            sandbox.connect(timeout=_LIFE_SECONDS)
        self._add("resume_ready_ms", clock.ms)

    def result(self) -> dict[str, Any]:
        """What is printed of it."""
        return {name: percentiles(values) for name, values in self.times.items()}

    def steps_result(self) -> dict[str, Any]:
        """Where the time goes."""
        return {
            of: {name: percentiles(values) for name, values in steps.items()}
            for of, steps in self.steps.items()
        }

    def _add(self, name: str, value: float) -> None:
        self.times.setdefault(name, []).append(value)

    def _add_steps(self, of: str, steps: Iterable[pb.Step]) -> None:
        kept = self.steps.setdefault(of, {})
        for one in steps:
            kept.setdefault(one.name, []).append(one.milliseconds)


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    options = _parse(arguments)
    with running() as target:
        with HostSandbox(target) as on_host, Sandbox.create(timeout=_LIFE_SECONDS) as sandbox:
            Series(options.settle).round(on_host)  # the first finds nothing in any cache
            idle, of_sdk = Series(options.settle), Series(options.settle)
            for number in range(options.idle):
                idle.round(on_host)
                of_sdk.round_of_sdk(sandbox)
                progress("idle", number + 1, options.idle)
        dirty = []
        for mib in options.mib:
            with HostSandbox(target) as on_host:
                dirty.append(measure_dirty(on_host, mib, options))
    return {
        "idle": {**idle.result(), "bytes": idle.bytes, "steps_ms": idle.steps_result()},
        "sdk": of_sdk.result(),
        "dirty": dirty,
        "runs": {"idle": options.idle, "dirty": options.dirty},
    }


def measure_dirty(sandbox: HostSandbox, mib: int, options: argparse.Namespace) -> dict[str, Any]:
    """With so much of its memory written."""
    in_shm = min(mib, _MOST_IN_SHM)
    sandbox.write("/dev/shm/dirty", os.urandom(in_shm * _MIB))
    if mib > in_shm:
        sandbox.write("/run/dirty", os.urandom((mib - in_shm) * _MIB))
    series = Series(options.settle)
    for number in range(options.dirty):
        series.round(sandbox)
        progress(f"{mib} MiB", number + 1, options.dirty)
    return {"mib": mib, **series.result(), "bytes": series.bytes}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks pause")
    parser.add_argument("--idle", type=at_least_one, default=20, help="rounds of an idle sandbox")
    parser.add_argument("--dirty", type=at_least_one, default=5, help="rounds of each other")
    parser.add_argument("--mib", type=at_least_one, nargs="*", default=[16, 64, 256])
    parser.add_argument("--settle", type=float, default=1.0, help="seconds before each call")
    return parser.parse_args(arguments)
