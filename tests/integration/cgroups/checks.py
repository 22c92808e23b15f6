"""What control groups must do, with real processes; of the standard library alone, as it runs on
this machine with what it has and, as a program, in a guest that has version 2.

    python3 checks.py    prints one line for each check; the first that fails ends it
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.orchestrator.cgroups import Limits, VmGroups, find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.cgroups import VmGroup

ROOMY = Limits(cores=1, memory_mb=256, tasks=100)
HOG = "x = bytearray(96 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1"
FORKS = """
import os, sys
made = 0
try:
    for _ in range(20):
        if os.fork() == 0:
            import time; time.sleep(60)
        made += 1
except OSError:
    pass
os.killpg(0, 9) if made >= 20 else sys.exit(made)
"""
SPIN = "import os; os.sched_setaffinity(0, {0})\nwhile True: pass"


@contextmanager
def groups(tag: str) -> Iterator[VmGroups]:
    """Those of a node, gone afterwards."""
    made = VmGroups(find(), tag)
    made.prepare(200)
    try:
        yield made
    finally:
        made.sweep(set())
        made.close()
        left = [path for parent in made.hierarchy.parents.values() for path in _named(parent, tag)]
        assert not left, left


def _named(parent: Path, tag: str) -> list[Path]:
    return list(parent.glob(f"emberbox-{tag}"))


@contextmanager
def process(group: VmGroup, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that runs in the group; it is gone afterwards, and the group empty."""
    waiting = f"import sys; sys.stdin.read(1)\n{code}"
    started = subprocess.Popen(
        [sys.executable, "-c", waiting], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        group.add(started.pid)
        assert started.stdin is not None
        started.stdin.write(b".")
        started.stdin.flush()
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        until(lambda: not _processes(group))


def until(condition, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    """Look until it is so. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _processes(group: VmGroup) -> list[str]:
    return [pid for at in group.directories.values() for pid in _read(at / "cgroup.procs").split()]


def _read(path: Path) -> str:
    return path.read_text().strip()


def limits_are_in_force(all_of_them: VmGroups) -> None:
    """As the kernel shows them."""
    group = all_of_them.make(1, Limits(cores=1.5, memory_mb=64, tasks=7))
    at = group.directories
    assert _read(at["pids"] / "pids.max") == "7"
    if group.version == 2:
        assert _read(at["cpu"] / "cpu.max") == "150000 100000"
        assert _read(at["memory"] / "memory.max") == str(64 << 20)
        assert _read(at["cpu"].parent / "cpu.weight") == "200"
    else:
        assert _read(at["cpu"] / "cpu.cfs_quota_us") == "150000"
        assert _read(at["memory"] / "memory.limit_in_bytes") == str(64 << 20)
        assert _read(at["cpu"].parent / "cpu.shares") == "2048"
    assert group.weigh(33)
    weight = at["cpu"] / ("cpu.weight" if group.version == 2 else "cpu.shares")
    assert _read(weight) == ("33" if group.version == 2 else "337")


def disk_rates_are_in_force(all_of_them: VmGroups) -> None:
    """On the first disk of this machine."""
    disk = next(path for path in sorted(Path("/sys/block").iterdir()) if path.name[:2] == "vd")
    device = _read(disk / "dev")
    group = all_of_them.make(2, Limits(cores=1, memory_mb=64, tasks=7, io=(device, 1 << 20)))
    at = group.directories["io"]
    if group.version == 2:
        assert _read(at / "io.max") == f"{device} rbps=1048576 wbps=1048576 riops=max wiops=max"
    else:
        assert _read(at / "blkio.throttle.write_bps_device") == f"{device} 1048576"


def who_takes_too_much_memory_is_killed(all_of_them: VmGroups) -> None:
    """And nobody else."""
    small = all_of_them.make(3, Limits(cores=1, memory_mb=48, tasks=100))
    with process(small, HOG) as hog:
        assert hog.wait(60) == -signal.SIGKILL
    with process(all_of_them.make(4, ROOMY), HOG) as hog:
        assert hog.wait(60) == 0


def who_makes_too_many_tasks_is_refused(all_of_them: VmGroups) -> None:
    """The program itself counts as one."""
    few = all_of_them.make(5, Limits(cores=1, memory_mb=256, tasks=5))
    with process(few, FORKS) as forks:
        assert forks.wait(60) == 4


def the_heavier_gets_more(all_of_them: VmGroups) -> None:
    """Two that want the same processor share it three to one."""
    heavy, light = all_of_them.make(6, ROOMY), all_of_them.make(7, ROOMY)
    light.weigh(33)
    with process(heavy, SPIN) as first, process(light, SPIN) as second:
        until(lambda: _ticks(first.pid) + _ticks(second.pid) > 200)
        assert _ticks(first.pid) > 1.5 * _ticks(second.pid)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def a_group_goes_when_it_is_empty(all_of_them: VmGroups) -> None:
    """And not before; twice is no error; a limit that is none leaves nothing."""
    group = all_of_them.make(8, ROOMY)
    with process(group, "import time; time.sleep(60)"):
        assert not group.remove()
    until(group.remove)
    assert group.remove()
    try:
        all_of_them.make(9, Limits(cores=-5, memory_mb=-1, tasks=-5))
    except OSError:
        pass
    else:
        raise AssertionError("the kernel took limits that cannot be")
    assert not any(at.exists() for at in all_of_them.group(9).directories.values())


def what_no_vm_uses_is_swept(all_of_them: VmGroups) -> None:
    """The garbage of a crash."""
    kept, other = all_of_them.make(10, ROOMY), all_of_them.make(11, ROOMY)
    all_of_them.sweep({10})
    assert all(at.exists() for at in kept.directories.values())
    assert not any(at.exists() for at in other.directories.values())


def a_parent_with_processes_is_refused() -> None:
    """Of v2 alone: its groups hold processes or groups."""
    hierarchy = find()
    if hierarchy.version != 2:
        return
    with groups("crowded") as crowded:
        parent = crowded.make(1, ROOMY)
        at = parent.directories["cpu"]
        with process(parent, "import time; time.sleep(60)"):
            try:
                VmGroups(find(at), "inner").prepare(100)
            except OSError as error:
                _say(f"refused: {error}")
            else:
                raise AssertionError("a group with processes took controllers")
            (at / "emberbox-inner").rmdir()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is a program


CHECKS = (
    limits_are_in_force,
    disk_rates_are_in_force,
    who_takes_too_much_memory_is_killed,
    who_makes_too_many_tasks_is_refused,
    the_heavier_gets_more,
    a_group_goes_when_it_is_empty,
    what_no_vm_uses_is_swept,
)


def main() -> None:
    """All of them."""
    hierarchy = find()
    _say(f"version {hierarchy.version}, missing {hierarchy.missing}")
    for check in CHECKS:
        with groups("checks") as made:
            check(made)
        _say(f"ok {check.__name__}")
    a_parent_with_processes_is_refused()
    _say("all ok")


if __name__ == "__main__":
    main()
