"""Peers of envd that speak bytes: they can stop anywhere, say nonsense, and read nothing."""

from __future__ import annotations

import base64
import json
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.stack import wait_until
from tests.unit.envd.conftest import START, envelope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.envd.conftest import Client

STREAM = "application/connect+json"
PATIENCE = 20.0


def head(method: str, *fields: str, kind: str = STREAM) -> bytes:
    """A request without its body."""
    lines = [f"POST /{method} HTTP/1.1", "Host: x", f"Content-Type: {kind}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Raw:
    """A connection."""

    def __init__(self, url: object, receive_buffer: int | None = None) -> None:
        host, port = str(url).removeprefix("http://").rstrip("/").split(":")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, int(port)))
        self.seen = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive_until(self, mark: bytes) -> bytes:
        """All so far, when `mark` is in it. Fails when the connection ends before."""
        while mark not in self.seen:
            data = self.socket.recv(65536)
            assert data, f"ended without {mark!r}: {self.seen[-500:]!r}"
            self.seen += data
        return self.seen

    def receive_all(self) -> bytes:
        """All, when envd has closed the connection."""
        while data := self.socket.recv(65536):
            self.seen += data
        return self.seen

    def close(self) -> None:
        self.socket.close()


@contextmanager
def raw(client: Client, **options: int) -> Iterator[Raw]:
    """A connection to the envd of `client`."""
    peer = Raw(client.base_url, **options)
    try:
        yield peer
    finally:
        peer.close()


@contextmanager
def following(
    client: Client, body: dict[str, Any], method: str = START, *fields: str
) -> Iterator[tuple[Raw, int]]:
    """A connection that took the first event of a stream and reads no more, and the pid.

    The connection is closed before the process is killed.
    """
    data = envelope(body)
    with ExitStack() as stack:
        peer = Raw(client.base_url, receive_buffer=8192)
        stack.callback(peer.close)
        peer.send(head(method, f"Content-Length: {len(data)}", *fields) + data)
        pid = pid_in(peer)
        stack.callback(kill, client, pid)
        stack.callback(peer.close)
        yield peer, pid


def pid_in(peer: Raw) -> int:
    """Of the first event."""
    seen = peer.receive_until(b"}}}")
    payload = seen[seen.index(b'{"event"') : seen.index(b"}}}") + 3]
    return int(json.loads(payload)["event"]["start"]["pid"])


def error_in(seen: bytes) -> dict[str, str]:
    """The error of a stream's last message or of a unary answer."""
    begin = seen.rindex(b'{"error"') if b'{"error"' in seen else seen.rindex(b'{"code"')
    found = json.JSONDecoder().raw_decode(seen[begin:].decode())[0]
    return dict(found.get("error", found))


def to_stdin(pid: int, data: bytes, kind: str = "stdin") -> dict[str, Any]:
    """A SendInput."""
    return {"process": {"pid": pid}, "input": {kind: base64.b64encode(data).decode()}}


def kill(client: Client, pid: int) -> None:
    """End a process that envd started."""
    client.call("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})


def bytes_written(pid: int) -> int:
    """What a process wrote so far."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise AssertionError("no wchar")


def wait_until_blocked(*pids: int) -> int:
    """Until processes have stopped writing; how much they wrote."""
    before = -1

    def still() -> bool:
        nonlocal before
        known, before = before, sum(map(bytes_written, pids))
        if before != known:
            time.sleep(0.3)  # between two looks, not until it is so
        return before == known

    wait_until(still, PATIENCE)
    return before
