"""What the programs of a stack hold of their machine, as counts; and how much memory they take."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests import leaks
from tests.stack import wait_until

if TYPE_CHECKING:
    from tests.stack import Stack

POOL = 4
"""Slots that an idle orchestrator keeps ready at least: EMBERBOX_SLOT_POOL's default."""
KEPT = 4 * POOL
"""So many it keeps of those that come back: fewer are no news."""

PROGRAMS = ("api-server", "client-proxy", "orchestrator")
_GRPC = ("event_engine", "grpc", "lifeguard", "resolver-exec", "timer")
"""Beginnings of the names of gRPC's threads, which come and go."""
_ESTABLISHED = "01"
"""In /proc/net/tcp."""
_CONNECTIONS = 5
"""That a program keeps to its SQLite database; each has a thread and two files."""
_DATABASE_FILES = 2 * _CONNECTIONS + 1
_THREADS = 1 + _CONNECTIONS + (os.cpu_count() or 1) + 4
"""The first, those of connections, and those of asyncio for blocking calls. Of either kind there
are so many as were ever needed at once, so that fewer are no news."""


def count(stack: Stack) -> dict[str, int]:
    """Everything that a sandbox takes, by kind."""
    machine = leaks.Machine.now(stack.home.root)
    network = stack.network
    slots = _slots(stack, machine)
    kept = KEPT + _holders(stack)
    links = sum(network.index_of_link(link) is not None for link in machine.links)
    return {
        **_of_programs(stack),
        "vms": sum(f" emberbox-{network.tag}-" in vm for vm in machine.vms),
        "namespaces": max(len(slots), kept),
        "links": max(links, kept),
        "taps": max(sum(map(_taps_in, slots)), kept),
        "nftables objects": _nftables_objects(stack),
        "cgroups": _cgroups(network.tag),
        "mounts": len(machine.mounts),
        "loop devices": len(machine.loops),
        "run directories": len(list(stack.home.run_directories.iterdir())),
        "files": _files(stack),
    }


def settled(stack: Stack) -> dict[str, int]:
    """The same once the stack is as it is when idle."""
    wait_until(lambda: _slots_are_ready(stack), 60)
    return count(stack)


def grown(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """What there is more of now."""
    return [f"{what}: {before[what]} → {now[what]}" for what in before if now[what] > before[what]]


def assert_nothing_grew(stack: Stack, before: dict[str, int]) -> None:
    """Fails, after a moment to settle, with what there is more of."""
    left = leaks.wait_until_none(lambda: grown(before, count(stack)))
    assert not left, left


def memory(stack: Stack) -> dict[str, int]:
    """Resident KiB of each program of ours; workers and helpers among them."""
    return {name: _resident(pid) for name, pid in processes(stack).items()}


def processes(stack: Stack) -> dict[str, int]:
    """Every program that serves this stack, VMMs excepted, by name."""
    found = {program: stack.pid_of(program) for program in PROGRAMS}
    for number, pid in enumerate(sorted(stack.data_proxy_pids()), 1):
        found[f"data proxy {number}"] = pid
    if (dns := stack.dns_pid()) is not None:
        found["dns forwarder"] = dns
    return found


def typical(samples: list[dict[str, int]]) -> dict[str, int]:
    """The median of several looks at memory: a garbage collection more or less is no news."""
    return {name: int(statistics.median(one[name] for one in samples)) for name in samples[0]}


def _slots_are_ready(stack: Stack) -> bool:
    free = len(_slots(stack, leaks.Machine.now(stack.home.root))) - _holders(stack)
    return POOL <= free <= KEPT


def _slots(stack: Stack, machine: leaks.Machine) -> list[str]:
    """The namespaces of the stack's slots."""
    return [n for n in machine.namespaces if stack.network.index_of_netns(n) is not None]


def _holders(stack: Stack) -> int:
    """Sandboxes and warm clones: who has a slot."""
    return len([*stack.home.run_directories.iterdir(), *stack.home.pool.glob("[!.]*")])


def _of_programs(stack: Stack) -> dict[str, int]:
    counts, clients = {}, _connections_of_clients(stack)
    for name, pid in processes(stack).items():
        process = Path(f"/proc/{pid}")
        targets = [target for target in _descriptors(process) if target not in clients]
        in_database = sum(".db" in target for target in targets)
        counts[f"descriptors of {name}"] = len(targets) - in_database
        counts[f"database files of {name}"] = max(in_database, _DATABASE_FILES)
        counts[f"threads of {name}"] = max(_threads(process), _THREADS)
        if name == "orchestrator":
            counts["memory files"] = sum("memfd:" in target for target in targets)
            counts["pidfds"] = sum("pidfd" in target for target in targets)
            children = process / "task" / process.name / "children"
            counts["children"] = len(children.read_text().split())
    return counts


def _connections_of_clients(stack: Stack) -> set[str]:
    """Whole connections to our servers: there are as many as the tests' own pools keep. Those
    whose client has left are not among them."""
    ports = {stack.ports.api, stack.ports.proxy, stack.ports.data, stack.ports.orchestrator}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _ESTABLISHED and int(fields[1].partition(":")[2], 16) in ports:
            found.add(f"socket:[{fields[9]}]")
    return found


def _descriptors(process: Path) -> list[str]:
    found = []
    for fd in (process / "fd").iterdir():
        try:
            found.append(str(fd.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def _threads(process: Path) -> int:
    names = []
    for task in (process / "task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    return sum(not name.startswith(_GRPC) for name in names)


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"{pid} has no memory")


def _taps_in(namespace: str) -> int:
    listed = subprocess.run(
        ["ip", "-n", namespace, "-o", "link", "show", "type", "tun"],
        capture_output=True,
        text=True,
        check=False,  # the slot may go while we look
        timeout=10,
    )
    return len(listed.stdout.splitlines())


def _nftables_objects(stack: Stack) -> int:
    """Tables, chains, rules, sets and their elements on the host that are this stack's."""
    listed = subprocess.run(
        ["nft", "-j", "list", "ruleset"], capture_output=True, check=True, timeout=10
    ).stdout
    objects = 0
    for entry in json.loads(listed)["nftables"]:
        (kind, about), *_ = entry.items()
        if stack.network.table in (about.get("table"), about.get("name")):
            objects += 1 + (len(about.get("elem", [])) if kind in ("set", "map") else 0)
    return objects


def _cgroups(tag: str) -> int:
    """Of sandboxes: a directory below one that is named for the node."""
    root = Path("/sys/fs/cgroup")
    nodes = [*root.glob(f"*emberbox*{tag}*"), *root.glob(f"*/*emberbox*{tag}*")]
    nodes += [*root.glob(f"*emberbox*/*{tag}*"), *root.glob(f"*/*emberbox*/*{tag}*")]
    return sum(1 for node in set(nodes) for path in node.rglob("*") if path.is_dir())


def _files(stack: Stack) -> int:
    """Under the orchestrator, but for the logs of ended sandboxes, which are kept on purpose."""
    state = stack.home.orchestrator
    return sum(1 for path in state.rglob("*") if "telemetry" not in path.relative_to(state).parts)
