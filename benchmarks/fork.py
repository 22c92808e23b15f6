"""How long a running sandbox takes to have children, and what each of them adds to memory.

    wall_ms       `Sandbox.fork` until it returns: all children run and have answered
    added_mb      proportional memory (PSS) of the children's VMMs, of each in the mean. Memory
                  that they share with one another is counted once, that of the image that they
                  are clones of included as far as one has read it
    available_mb  by how much the host's available memory fell, of each in the mean: with the
                  image that is loaded for them, network and all else

The source has a program in memory that has written so many MiB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Clock, at_least_one, progress
from benchmarks.stack import running
from benchmarks.vmms import available_mb, pss_mb
from emberbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIFE_SECONDS = 900
_MIB = 1 << 20
_SETTLE_SECONDS = 2.0


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fork")
    parser.add_argument("--children", type=at_least_one, nargs="*", default=[1, 5, 20])
    parser.add_argument("--rounds", type=at_least_one, default=3, help="of each number")
    parser.add_argument("--mib", type=at_least_one, default=16, help="memory written before")
    options = parser.parse_args(arguments)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in options.children}
    with running(), Sandbox.create(timeout=_LIFE_SECONDS) as source:
        source.files.write("/dev/shm/dirty", os.urandom(options.mib * _MIB), user="root")
        source.fork(count=1)[0].kill()  # type: ignore[union-attr]
        for number in range(options.rounds):
            for count in options.children:
                found[count].append(measure(source, count))
            progress("rounds", number + 1, options.rounds)
    return {
        "fork": [{"children": count, **medians(rounds)} for count, rounds in found.items()],
        "runs": {"rounds": options.rounds, "mib": options.mib},
    }


def measure(source: Sandbox, count: int) -> dict[str, float]:
    """One fork. Raises what a child failed with."""
    time.sleep(_SETTLE_SECONDS)
    clock = Clock()
    available = available_mb()
    with ExitStack() as ended:
        with clock.running():
            children = source.fork(count=count, timeout=_LIFE_SECONDS)
        ids = []
        for child in children:
            if not isinstance(child, Sandbox):
                raise child
            ended.callback(child.kill)
            ids.append(child.sandbox_id)
        time.sleep(_SETTLE_SECONDS)
        added, fell = sum(map(pss_mb, ids)), available - available_mb()
    return {
        "wall_ms": clock.ms,
        "added_mb": added / count,
        "available_mb": fell / count,
    }


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each figure, to a tenth."""
    return {name: round(statistics.median(r[name] for r in rounds), 1) for name in rounds[0]}
