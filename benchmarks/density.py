"""What an idle sandbox takes of its host, with so many of them.

Each is created, has run one command and is then left alone. `pss_mb_each`: proportional memory of
its VMM, in which what clones share counts in parts; `cpu_percent_each`: of one core, its VMM's
alone, over a while in which nobody asks it anything but the host for its metrics; the same of the
orchestrator and the data proxy is in `orchestrator_mb` and `orchestrator_cpu_percent`, the latter
of all sandboxes together. The pool is off, so that all VMs are sandboxes.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.figures import at_least_one, progress
from benchmarks.stack import own
from emberbox import Sandbox

if TYPE_CHECKING:
    from benchmarks.stack import Stack

_LIFE_SECONDS = 3600
_MIB = 1024


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks density")
    parser.add_argument("--sandboxes", type=at_least_one, nargs="+", default=[1, 20, 50])
    parser.add_argument("--settle", type=float, default=20.0, help="seconds before looking")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to look")
    options = parser.parse_args(arguments)
    with own(2, EMBERBOX_POOL_SIZE="0") as stack, ExitStack() as ended:
        made: list[Sandbox] = []
        readings = []
        for count in sorted(options.sandboxes):
            while len(made) < count:
                sandbox = Sandbox.create(timeout=_LIFE_SECONDS, **stack.sdk)
                made.append(ended.enter_context(sandbox))
                sandbox.commands.run("true")
                progress("sandboxes", len(made), count)
            time.sleep(options.settle)
            readings.append({"sandboxes": count, **_read(stack, options.seconds)})
    return {"density": readings, "runs": vars(options)}


def _read(stack: Stack, seconds: float) -> dict[str, float]:
    vmms = list(stack.vmms(stack.home.run_directories).values())
    ours = [stack.orchestrator_pid, *stack.workers()]
    before = {pid: _cpu_seconds(pid) for pid in (*vmms, *ours)}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    used = {pid: _cpu_seconds(pid) - before[pid] for pid in before}
    memory = [_memory(pid) for pid in vmms]
    return {
        "pss_mb_each": round(fmean(one["Pss"] for one in memory), 1),
        "private_mb_each": round(fmean(one["Private_Dirty"] for one in memory), 1),
        "cpu_percent_each": round(100 * fmean(used[pid] for pid in vmms) / passed, 3),
        "orchestrator_mb": round(sum(_memory(pid)["Pss"] for pid in ours), 1),
        "orchestrator_cpu_percent": round(100 * sum(used[pid] for pid in ours) / passed, 2),
    }


def _cpu_seconds(pid: int) -> float:
    """To the nanosecond, of all threads: what is idle wakes for less than a tick."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def _memory(pid: int) -> dict[str, float]:
    """Of a process, in MiB; see proc(5), smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) / _MIB for name, _, rest in fields}
