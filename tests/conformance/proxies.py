"""Both proxies as programs, each with a server of ours behind it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.data_proxy.messages import Route, Snapshot, encode
from emberbox.shared import internal_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PATIENCE = 20.0
"""Seconds for anything that is waited for."""
_HOST = b"Host: 8000-i1.example.com"
_SECRET_LINE = re.compile(rb"X-Emberbox-Internal-Secret: [0-9a-f]{64}\r\n")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy: where its clients connect, and the server that sandbox `i1` is."""

    port: int
    server: socket.socket
    secret: str = ""
    """Shown by clients of the data proxy."""

    def as_sent(self, data: bytes) -> bytes:
        """Bytes of a client, with the Host of the sandbox in the place of `@HOST@`."""
        shown = f"\r\nX-Emberbox-Internal-Secret: {self.secret}" if self.secret else ""
        return data.replace(b"@HOST@", _HOST + shown.encode())

    def as_seen(self, head: bytes) -> bytes:
        """A head that the server got, as the cases write it: what is particular to this proxy is
        checked here and taken away."""
        if self.secret:
            # A port of a user gets a connection for each request.
            ours = b"Connection: close\r\n"
            assert b"X-Emberbox" not in head, head
            if b"Upgrade: websocket" not in head:
                assert head.count(ours) == 1, head
                head = head.replace(ours, b"")
        else:
            assert len(_SECRET_LINE.findall(head)) == 1, head
            head = _SECRET_LINE.sub(b"", head)
        return head.replace(_HOST, b"@HOST@")

    def connect(self) -> socket.socket:
        """A connection of a client."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)


@contextlib.contextmanager
def client_proxy(home: Path, ports: list[int]) -> Iterator[Proxy]:
    """`client-proxy`, whose data proxy is our server. `ports`: two free ones."""
    port, health_port = ports
    with listening("127.0.0.1", 0) as server:
        flags: dict[str, object] = {
            "--home": home,
            "--port": port,
            "--health-port": health_port,
            "--data-proxy": f"127.0.0.1:{server.getsockname()[1]}",
        }
        with running("emberbox.cli", "client-proxy", flags=flags) as process:
            wait_for_port(port, process)
            yield Proxy(port, server)


@contextlib.contextmanager
def data_proxy(place: Path, ports: list[int], guest: str) -> Iterator[Proxy]:
    """A worker of the data proxy, whose sandbox is our server on an address of loopback."""
    routes = [Route("i1", "e1", guest)]
    with listening(guest, 8000) as server, data_proxy_of(place, ports, routes) as secret:
        yield Proxy(ports[0], server, secret)


@contextlib.contextmanager
def data_proxy_of(place: Path, ports: list[int], routes: list[Route]) -> Iterator[str]:
    """A worker with these routes; the secret that its clients show."""
    port, metrics_port = ports
    secret_file = place / "internal_secret"
    secret = internal_secret.load_or_create(secret_file)
    flags: dict[str, object] = {
        "--socket": place / "routes.sock",
        "--secret-file": secret_file,
        "--api": "127.0.0.1:9",
        "--row": place / "worker-0.counts",
        "--port": port,
        "--metrics-port": metrics_port,
    }
    with (
        _feeding(place / "routes.sock", routes) as applied,
        running("emberbox.orchestrator.data_proxy", flags=flags) as process,
    ):
        wait_for_port(port, process)
        assert applied.wait(PATIENCE)
        yield secret


@contextlib.contextmanager
def _feeding(path: Path, routes: Iterable[Route]) -> Iterator[threading.Event]:
    """What the orchestrator does: tell each worker the routes. Set when one has them."""
    applied = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    worker, _ = listener.accept()
                    worker.sendall(encode(Snapshot(0, tuple(routes))))
                    assert json.loads(worker.recv(4096))["type"] == "ack"
                    applied.set()
                    connected.append(worker)

        connected: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield applied
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for worker in connected:
            worker.close()


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A server's socket."""
    with socket.create_server((host, port), backlog=64) as server:
        server.settimeout(PATIENCE)
        yield server


@contextlib.contextmanager
def running(
    module: str, *words: str, flags: dict[str, object], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours, ended by SIGTERM and looked at: it must not have failed."""
    command = [sys.executable, "-P", "-m", module, *words]
    more = [str(word) for pair in flags.items() for word in pair]
    process = subprocess.Popen(
        [*command, *more], env={**os.environ, **(environment or {})}, stderr=subprocess.PIPE
    )
    log = bytearray()
    assert process.stderr is not None
    reader = threading.Thread(target=lambda err: log.extend(err.read()), args=(process.stderr,))
    reader.start()
    try:
        yield process
    finally:
        process.terminate()
        status = process.wait(PATIENCE)
        reader.join()
        process.stderr.close()
    assert status == 0, log.decode()
    assert b"Traceback" not in log, log.decode()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when somebody listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "the program ended"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def wait_until_healthy(health_port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the client proxy says that all of it serves."""
    deadline = time.monotonic() + PATIENCE
    wait_for_port(health_port, process)
    while scrape(health_port, "/health") != '{"status":"ok"}':
        assert time.monotonic() < deadline
        time.sleep(0.02)


def scrape(port: int, path: str = "/metrics") -> str:
    """The body of an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as asked:
        asked.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: asked.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2].decode()
