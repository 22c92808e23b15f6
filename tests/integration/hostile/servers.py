"""What the fake internet offers: servers that tell what reached them, names, a package index."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import selectors
import socket
import struct
import threading
import zipfile
from typing import TYPE_CHECKING, Self

from emberbox.orchestrator.network import netns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.network.world import World

_POLL_S = 0.1
_HELLO = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"


class Witness:
    """Answers on sockets of any namespace, and remembers which of them anybody reached."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._selector = selectors.DefaultSelector()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._held: list[socket.socket] = []
        self.reached: list[str] = []
        """`address:port` of each connection and datagram."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._selector.close()
        for connection in self._held:
            connection.close()

    def listen(self, where: Path, address: str, port: int) -> None:
        """Answer TCP and UDP there."""
        name = f"{address}:{port}"
        tcp = self._world.listen(where, address, port)
        udp = self._world.listen(where, address, port, socket.SOCK_DGRAM)
        self._selector.register(tcp, selectors.EVENT_READ, lambda: self._accept(tcp, name))
        self._selector.register(udp, selectors.EVENT_READ, lambda: self._echo(udp, name))

    def listen_and_hold(self, where: Path, address: str, port: int) -> None:
        """Take TCP connections there and keep them, silent after a first word."""
        listener = self._world.listen(where, address, port)
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._hold(listener))

    def _serve(self) -> None:
        while not self._ending.is_set():
            for key, _ in self._selector.select(_POLL_S):
                answer: Callable[[], None] = key.data
                with contextlib.suppress(OSError):  # whoever asked is gone
                    answer()

    def _accept(self, listener: socket.socket, name: str) -> None:
        connection, _ = listener.accept()
        with connection:
            self.reached.append(name)
            connection.sendall(_HELLO)

    def _hold(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._held.append(connection)
        connection.sendall(_HELLO)

    def _echo(self, bound: socket.socket, name: str) -> None:
        data, peer = bound.recvfrom(4096)
        self.reached.append(name)
        bound.sendto(data, peer)


class NameServer:
    """Answers every question for an address with the one it is given."""

    def __init__(self, world: World, where: Path, address: str, answer: str) -> None:
        self._answer = socket.inet_aton(answer)
        self._udp = world.listen(where, address, 53, socket.SOCK_DGRAM)
        self._udp.setblocking(True)
        self._udp.settimeout(_POLL_S)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                query, peer = self._udp.recvfrom(4096)
                self._udp.sendto(self._reply(query), peer)

    def _reply(self, query: bytes) -> bytes:
        """The address for a question of type A, nothing for one of another type."""
        end = query.index(b"\0", 12) + 5
        wants_address = query[end - 4 : end - 2] == b"\0\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + self._answer if wants_address else b""
        head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, bool(record), 0, 0)
        return head + query[12:end] + record


class PackageIndex:
    """A simple repository (PEP 503) with one package, `demo`."""

    FILE = "demo-1.0-py3-none-any.whl"

    def __init__(self, where: Path, address: str) -> None:
        self.wheel = _wheel()
        self.sha256 = hashlib.sha256(self.wheel).hexdigest()
        pages = {
            "/simple/demo/": (
                "text/html", f'<a href="/{self.FILE}#sha256={self.sha256}">{self.FILE}</a>'.encode()
            ),
            f"/{self.FILE}": ("application/octet-stream", self.wheel),
        }  # fmt: skip

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, body = pages.get(self.path, ("", b""))
                self.send_response(200 if kind else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = netns.run_in(where, lambda: _Server((address, 8080), Handler))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Without asking a resolver for the address's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]


def _wheel() -> bytes:
    metadata = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("demo.py", "ANSWER = 42\n")
        archive.writestr("demo-1.0.dist-info/METADATA", metadata)
        archive.writestr("demo-1.0.dist-info/WHEEL", wheel)
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    return held.getvalue()
