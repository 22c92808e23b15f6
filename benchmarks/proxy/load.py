"""The backend and the load: `peer.c`, built here and run on the last core."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SOURCE = Path(__file__).with_name("peer.c")
_SANDBOXES = 16
_FIELDS = """\
accept: */*\r
accept-encoding: gzip, deflate\r
user-agent: e2b-python-sdk/2.63.0\r
e2b-sandbox-id: {id}\r
e2b-sandbox-port: 49983\r
x-access-token: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r
host: 49983-{id}.example.com\r
"""


@dataclass(slots=True)
class Load:
    """What one load came to."""

    requests: int
    errors: int
    bytes: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_seconds: float = 0.0
    """Of the proxy."""

    @property
    def cpu_us(self) -> float:
        """Of the proxy, for one request or message."""
        return self.cpu_seconds * 1e6 / max(self.requests, 1)

    @property
    def per_second(self) -> float:
        """Requests or messages."""
        return self.requests / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Of bodies."""
        return self.bytes / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        """Of bodies."""
        return self.bytes_per_second / 1e6


@dataclass(frozen=True, slots=True)
class Peer:
    """The program, and the port at which it serves."""

    program: Path
    port: int

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Peer]:
        """Build it and let it serve."""
        with tempfile.TemporaryDirectory() as place:
            program = _build(Path(place) / "peer")
            port = free_port()
            process = subprocess.Popen([program, "serve", str(port)])
            try:
                os.sched_setaffinity(process.pid, {_LAST_CORE})
                wait_for_port(port, process)
                yield cls(program, port)
            finally:
                process.kill()
                process.wait()

    def load(
        self, port: int, connections: int, seconds: float, mode: str, requests: Sequence[str]
    ) -> Load:
        """Keep `connections` busy at `port`."""
        numbers = [str(port), str(connections), str(seconds)]
        done = subprocess.run(
            [self.program, "load", *numbers, mode, *requests],
            check=True,
            stdout=subprocess.PIPE,
            preexec_fn=_to_last_core,
        )
        return Load(**json.loads(done.stdout))


@dataclass(frozen=True, slots=True)
class Requests:
    """Files with a head each."""

    place: Path

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Requests]:
        """They are gone afterwards."""
        with tempfile.TemporaryDirectory() as place:
            yield cls(Path(place))

    @property
    def small(self) -> list[str]:
        """1 KiB to read, for several sandboxes."""
        return [self._file(f"small{n}", n) for n in range(_SANDBOXES)]

    @property
    def unique(self) -> list[str]:
        """The same, each with a field of its own."""
        field = "x-request-id: @@@@@@@@\r\n"
        return [self._file(f"unique{n}", n, more=field) for n in range(_SANDBOXES)]

    @property
    def upgrade(self) -> list[str]:
        """A WebSocket."""
        return [self._file("upgrade", 0, more="connection: Upgrade\r\nupgrade: websocket\r\n")]

    def large(self, size: int) -> list[str]:
        """So many bytes to read."""
        return [self._file("large", 0, size=size)]

    def upload(self, size: int) -> list[str]:
        """So many bytes to write."""
        return [self._file("upload", 0, method="POST", size=2, more=f"content-length: {size}\r\n")]

    def _file(
        self, name: str, sandbox: int, *, method: str = "GET", size: int = 1024, more: str = ""
    ) -> str:
        line = f"{method} /{size}?path=%2Fhome%2Fuser%2Fa HTTP/1.1\r\n"
        fields = _FIELDS.format(id=f"iabcdefghij01234567{sandbox:02}")
        path = self.place / name
        path.write_text(f"{line}{fields}{more}\r\n", newline="")
        return str(path)


_LAST_CORE = max(os.sched_getaffinity(0))


def _to_last_core() -> None:
    os.sched_setaffinity(0, {_LAST_CORE})


def _build(program: Path) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        sys.exit("benchmarks proxy needs gcc for its load: apt-get install gcc libc6-dev")
    command = [compiler, "-O2", "-o", str(program), str(_SOURCE)]
    built = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if built.returncode:
        sys.exit(f"gcc cannot build {_SOURCE}: apt-get install libc6-dev\n{built.stderr}")
    return program


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Return when somebody listens. Ends this program when `process` ends first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                sys.exit(f"{process.args!r} ended before it listened on port {port}")
            time.sleep(0.02)
        else:
            return
    sys.exit(f"nobody listens on port {port} after {seconds:g} s")
