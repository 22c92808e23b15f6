"""What a test could leave on the machine: processes, namespaces, links, rules, loops, files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_SETTLE = 5.0
"""Seconds that what was told to end may take: the kernel removes namespaces in the background."""


def wait_until_none(look: Callable[[], list[str]]) -> list[str]:
    """Look until nothing is left or the time to settle is over; what is left."""
    deadline = time.monotonic() + _SETTLE
    left = look()
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = look()
    return left


def processes(variable: str, value: str) -> list[str]:
    """Live processes, other than this one, that were started with `variable=value`."""
    wanted = f"{variable}={value}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        pid = int(environ.parent.name)
        if pid != os.getpid() and wanted in _read(environ).split(b"\0"):
            found.append(_command(pid))
    return found


@dataclass(frozen=True, slots=True)
class Machine:
    """What Emberbox makes on a machine, each thing as a line that names it."""

    vms: frozenset[str]
    helpers: frozenset[str]
    loops: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]

    @classmethod
    def now(cls, under: Path) -> Self:
        """Look at the machine; mounts below `under` only, as others may mount what they like."""
        return cls(
            vms=_vms(),
            helpers=_helpers(),
            loops=_loops(),
            mounts=_mounts(under),
            namespaces=frozenset(_names("/run/netns", "eb-*")),
            links=frozenset(_names("/sys/class/net", "eb*v*")),
            tables=_tables(),
        )

    @property
    def nodes(self) -> frozenset[str]:
        """Tags of the orchestrators whose namespaces are here."""
        return frozenset(name.split("-")[1] for name in self.namespaces)

    def beyond(self, before: Self, *names: str) -> list[str]:
        """What is here now and was not before, in all fields or in those named.

        Namespaces, links and tables of an orchestrator that was here before are its own affair:
        it makes and removes slots while we look.
        """
        return [
            f"{name}: {line}"
            for name in names or self.__slots__
            for line in sorted(getattr(self, name) - getattr(before, name))
            if not any(tag in line for tag in before.nodes)
        ]


def _vms() -> frozenset[str]:
    commands = (_command(int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return frozenset(command for command in commands if _is_vmm(command.split(" ")[1]))


def _is_vmm(program: str) -> bool:
    return any(name in program for name in ("qemu-system", "firecracker", "jailer"))


def _helpers() -> frozenset[str]:
    """Data proxy workers and DNS forwarders: no variable of their starter marks them."""
    commands = (_command(int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return frozenset(command for command in commands if " -m emberbox.orchestrator." in command)


def _command(pid: int) -> str:
    line = _read(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode(errors="replace")
    return f"{pid} {line[:200]}"


def _names(directory: str, pattern: str) -> list[str]:
    return [path.name for path in Path(directory).glob(pattern)]


def _tables() -> frozenset[str]:
    if shutil.which("nft") is None or os.geteuid() != 0:
        return frozenset()
    listed = subprocess.run(
        ["nft", "-j", "list", "tables"], capture_output=True, check=True, timeout=10
    ).stdout
    tables = [entry["table"] for entry in json.loads(listed)["nftables"] if "table" in entry]
    return frozenset(
        f"{table['family']} {table['name']}"
        for table in tables
        if table["name"].startswith("emberbox")
    )


def _loops() -> frozenset[str]:
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return frozenset(f"{path.parts[3]} {_read(path).decode().strip()}" for path in backing)


def _mounts(under: Path) -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (Path(line.split(" ")[4]) for line in lines)
    return frozenset(str(point) for point in points if point.is_relative_to(under))


def descriptors() -> frozenset[str]:
    """Files, pipes and sockets that this process has open.

    Without epoll and event descriptors: gRPC keeps some of its own for good.
    """
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if not target.startswith(("/proc/", "/dev/", "anon_inode:")):
            found.add(f"{fd.name} {target}")
    return frozenset(found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process ended meanwhile
        return b""
