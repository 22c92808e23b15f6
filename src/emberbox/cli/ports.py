"""Who listens on a TCP port of this machine."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from pathlib import Path

from emberbox.cli.processes import name_of

_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port; `pid` is None when it cannot be seen from here."""

    port: int
    pid: int | None

    def __str__(self) -> str:
        if self.pid is None:
            return f"port {self.port} is taken"
        return f"port {self.port} is taken by pid {self.pid} ({name_of(self.pid)})"


def holder(host: str, port: int) -> Holder | None:
    """The listener that keeps `host:port` from being bound, or None when it can be."""
    with socket.socket() as probe:
        # Servers set it too: connections in TIME_WAIT of an earlier run are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return Holder(port, _listening_pid(port))
    return None


def _listening_pid(port: int) -> int | None:
    inodes = _listening_inodes(port)
    links = {f"socket:[{inode}]" for inode in inodes}
    for fds in Path("/proc").glob("[0-9]*/fd"):
        if _has_link(fds, links):
            return int(fds.parent.name)
    return None


def _has_link(fds: Path, links: set[str]) -> bool:
    try:
        return any(str(fd.readlink()) in links for fd in fds.iterdir())
    except OSError:  # the process ended, or belongs to another user
        return False


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:  # no IPv6
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found
