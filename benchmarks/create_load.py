"""Creates when much goes on.

- `refill_cpu_ms`: processor time to make one warm clone, of its VMM and of the orchestrator
- `busy`: `create` and `true` in an idle sandbox with 2 sandboxes that spin, in turns with none;
  `create_ratio` and `true_ratio` are busy over quiet
- `burst20`, `burst100`: so many creates at once, each with a first command; `orphans` is what was
  left after all of them were killed
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.create_series import LIFE_SECONDS, through_sdk
from benchmarks.figures import Clock, progress
from emberbox import Sandbox, SandboxException, ServiceBusyException

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.stack import Stack

_SPINNERS = 2
_SPIN = "while :; do :; done"
_TURNS = 4
_BURST_SECONDS = 300
_SETTLE_SECONDS = 60.0
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def refill_cpu_ms(stack: Stack, count: int) -> float:
    """A warm clone is killed and made good, so many times; the median."""
    taken = []
    for number in range(count):
        stack.refilled()
        before = stack.vmms(stack.home.pool)
        orchestrator = _cpu_ms(stack.orchestrator_pid)
        os.kill(next(iter(before.values())), signal.SIGKILL)
        while not (made := stack.vmms(stack.home.pool).keys() - before.keys()):
            time.sleep(0.01)
        stack.refilled()
        [clone] = made
        vmm = _cpu_ms(stack.vmms(stack.home.pool)[clone])
        taken.append(vmm + _cpu_ms(stack.orchestrator_pid) - orchestrator)
        progress("refills", number + 1, count)
    return round(statistics.median(taken), 1)


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_MS


def busy(stack: Stack, count: int) -> dict[str, Any]:
    """Medians in milliseconds; the quiet ones beside them."""
    times: dict[str, list[float]] = {"create": [], "true": [], "quiet create": [], "quiet true": []}
    each = -(-count // _TURNS)
    with ExitStack() as ended:
        idle, *spinning = (
            ended.enter_context(Sandbox.create(timeout=LIFE_SECONDS, **stack.sdk))
            for _ in range(1 + _SPINNERS)
        )
        for turn in range(_TURNS):
            _measure(stack, idle, each, times, "quiet ")
            with _spin(spinning):
                _measure(stack, idle, each, times, "")
            progress("busy", turn + 1, _TURNS)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "create_p50_ms": round(medians["create"], 1),
        "true_p50_ms": round(medians["true"], 1),
        "quiet_create_p50_ms": round(medians["quiet create"], 1),
        "quiet_true_p50_ms": round(medians["quiet true"], 1),
        "create_ratio": round(medians["create"] / medians["quiet create"], 2),
        "true_ratio": round(medians["true"] / medians["quiet true"], 2),
    }


def _measure(
    stack: Stack, idle: Sandbox, count: int, times: dict[str, list[float]], prefix: str
) -> None:
    idle.commands.run("true")
    for _ in range(count):
        stack.refilled()
        times[f"{prefix}create"].append(through_sdk(stack.sdk)[0])
        stack.refilled()
        clock = Clock()
        with clock.running():
            idle.commands.run("true")
        times[f"{prefix}true"].append(clock.ms)


@contextmanager
def _spin(sandboxes: list[Sandbox]) -> Iterator[None]:
    """Each has one processor that does nothing else."""
    handles = [s.commands.run(_SPIN, background=True, timeout=0) for s in sandboxes]
    try:
        yield
    finally:
        for handle in handles:
            handle.kill()


def burst(stack: Stack, count: int) -> dict[str, Any]:
    """All at once, beginning with a full pool."""
    stack.refilled()
    begun = time.perf_counter()
    with ThreadPoolExecutor(count) as threads:
        results = list(threads.map(lambda _: _one(stack), range(count)))
        wall = time.perf_counter() - begun
        made = [result for result in results if isinstance(result, Sandbox)]
        list(threads.map(Sandbox.kill, made))
    progress(f"burst of {count}", len(made), count)
    return {
        "wall_s": round(wall, 2),
        "succeeded": len(made),
        "refused": results.count("refused"),
        "failed": results.count("failed"),
        "orphans": _orphans(stack),
    }


def _one(stack: Stack) -> Sandbox | str:
    try:
        with ExitStack() as ended:
            options = {"timeout": LIFE_SECONDS, "request_timeout": _BURST_SECONDS, **stack.sdk}
            sandbox = ended.enter_context(Sandbox.create(**options))
            sandbox.commands.run("true", timeout=_BURST_SECONDS, request_timeout=_BURST_SECONDS)
            ended.pop_all()  # it ends with the others, after the clock has stopped
    except ServiceBusyException as error:
        print(error, file=sys.stderr)
        return "refused"
    except SandboxException as error:
        print(error, file=sys.stderr)
        return "failed"
    return sandbox


def _orphans(stack: Stack) -> int:
    """VMMs and run directories that are left when all should be gone."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (left := len(list(stack.home.run_directories.iterdir()))) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    stack.refilled()
    known = set(stack.vmms(stack.home.pool).values())
    return left + len(_vmms_of(stack) - known)


def _vmms_of(stack: Stack) -> set[int]:
    """The VMMs of the host, by what they have open."""
    ours = str(stack.home.root).encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            opened = b" ".join(os.fsencode(fd.readlink()) for fd in (process / "fd").iterdir())
        except OSError:
            continue
        if b"qemu-system" in command.split(b"\0")[0] and ours in opened:
            found.add(int(process.name))
    return found
