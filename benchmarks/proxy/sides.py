"""The two proxies, each on the first core."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.proxy.load import free_port, wait_for_port
from emberbox.shared import internal_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parent.parent.parent
_CONFIGURATION = Path(__file__).with_name("nginx.conf")
_REQUEST = b"GET /16 HTTP/1.1\r\nHost: 49983-iabc.example.com\r\n\r\n"
_FIRST_CORE = min(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Side:
    """A proxy: the process that does the work, and its port."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """What the process has used of a core so far, to the nanosecond."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory_of_idle(self, count: int) -> int:
        """Bytes that it takes more for `count` connections between two requests."""
        before = self._memory()
        with ExitStack() as opened:
            for _ in range(count):
                connection = opened.enter_context(
                    socket.create_connection(("127.0.0.1", self.port))
                )
                connection.sendall(_REQUEST)
                connection.recv(4096)
            return self._memory() - before

    def _memory(self) -> int:
        """Proportional, in bytes."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024


@contextmanager
def started(backend: int) -> Iterator[dict[str, Side]]:
    """Both, in front of the backend at that port of loopback."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as running:
        secret = internal_secret.load_or_create(Path(place) / "internal_secret")
        nginx = running.enter_context(_nginx(Path(place), backend, secret))
        ours = running.enter_context(_ours(Path(place), backend))
        yield {"nginx": nginx, "ours": ours}


@contextmanager
def _nginx(place: Path, backend: int, secret: str) -> Iterator[Side]:
    port = free_port()
    values = {"@BACKEND@": str(backend), "@PORT@": str(port), "@SECRET@": secret}
    text = _CONFIGURATION.read_text()
    for name, value in values.items():
        text = text.replace(name, value)
    (place / "nginx.conf").write_text(text)
    with _process([_nginx_program(), "-p", str(place), "-c", "nginx.conf"], port) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Side(_pinned(int(children[0])), port)


def _nginx_program() -> str:
    """Where `make install` has unpacked it, or the system's."""
    unpacked = _ROOT / ".tools" / "usr" / "sbin" / "nginx"
    program = str(unpacked) if unpacked.exists() else shutil.which("nginx")
    return program or sys.exit("benchmarks proxy needs nginx: run make install")


@contextmanager
def _ours(place: Path, backend: int) -> Iterator[Side]:
    port = free_port()
    command = [sys.executable, "-P", "-m", "emberbox.cli", "client-proxy", "--home", str(place)]
    flags = {
        "--port": port,
        "--health-port": free_port(),
        "--data-proxy": f"127.0.0.1:{backend}",
        "--access-log": place / "access.log",
        "--log-file": place / "client-proxy.log",
    }
    more = [str(word) for pair in flags.items() for word in pair]
    with _process([*command, *more], port) as process:
        yield Side(_pinned(process.pid), port)


@contextmanager
def _process(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        time.sleep(0.2)  # what it does after it has begun to listen is not measured
        yield process
    finally:
        process.terminate()
        process.wait()


def _pinned(pid: int) -> int:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {_FIRST_CORE})
    return pid
