"""How ends pass between a client and a guest, seen from both: raw sockets outside and inside."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.stack import frozen, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emberbox import Sandbox
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

PEERS = Path(__file__).with_name("guest_peers.py")
NOTES = "/home/user/ends"
OUTER, INNER = 8000, 8001
"""Ports inside: one that listens on every address, one on 127.0.0.1."""

REQUESTS = {
    "/stream": ("GET", ()),
    "/poll": ("GET", ()),
    "/upload": ("POST", ("Content-Length: 100000",)),
    "/tunnel": ("GET", ("Connection: Upgrade", "Upgrade: websocket")),
}


class Client:
    """A TCP connection to the client proxy."""

    def __init__(self, stack: Stack, sandbox: Sandbox, port: int) -> None:
        address = urlsplit(stack.facts["sandbox_url"])
        self.socket = socket.create_connection((address.hostname, address.port), timeout=20)
        self._routing = f"E2b-Sandbox-Id: {sandbox.sandbox_id}\r\nE2b-Sandbox-Port: {port}"

    def ask(self, path: str, method: str = "GET", *fields: str, body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", self._routing, *fields, "", ""]
        self.socket.sendall("\r\n".join(lines).encode() + body)

    def ask_for(self, path: str) -> None:
        """Make one of REQUESTS, an upload by half."""
        method, fields = REQUESTS[path]
        self.ask(path, method, *fields, body=b"half" if method == "POST" else b"")

    def read_until(self, end: bytes) -> bytes:
        read = b""
        while end not in read:
            data = self.socket.recv(65536)
            assert data, read
            read += data
        return read

    def end(self) -> tuple[str, bytes]:
        """How the connection ends, and what came before."""
        read = b""
        try:
            while data := self.socket.recv(65536):
                read += data
        except ConnectionResetError:
            return "reset", read
        return "eof", read

    def leave(self, how: str) -> None:
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@pytest.fixture
def watched(create: Callable[..., Sandbox]) -> Sandbox:
    """A sandbox with a watching server on both ports."""
    sandbox = create()
    sandbox.files.write("/home/user/peers.py", PEERS.read_text())
    sandbox.files.write(NOTES, "")
    for host, port in (("0.0.0.0", OUTER), ("127.0.0.1", INNER)):
        server = f"python3 /home/user/peers.py {host} {port} {NOTES}"
        sandbox.commands.run(server, background=True, timeout=0)
    wait_until(lambda: _listens(sandbox, OUTER) and _listens(sandbox, INNER), 60)
    return sandbox


@pytest.fixture
def connect(stack: Stack) -> Iterator[Callable[[Sandbox, int], Client]]:
    """Opens connections that are gone after the test."""
    made: list[Client] = []

    def connect(sandbox: Sandbox, port: int) -> Client:
        made.append(Client(stack, sandbox, port))
        return made[-1]

    yield connect
    for client in made:
        client.socket.close()


@pytest.mark.exhaustive
@pytest.mark.parametrize("port", [OUTER, INNER], ids=["any address", "localhost"])
def test_the_guest_sees_that_a_client_left(
    watched: Sandbox, connect: Callable[[Sandbox, int], Client], port: int
) -> None:
    for how in ("close", "reset"):
        for path in REQUESTS:
            watched.files.write(NOTES, "")
            client = connect(watched, port)
            client.ask_for(path)
            _wait_for_note(watched, f"{path} open")
            client.leave(how)
            ends = _wait_for_note(watched, f"{path} eof", f"{path} reset")
            if path == "/upload":
                assert ends == "/upload reset", "half an upload must not look like all of it"


def test_a_kill_resets_what_is_open_and_answers_502_at_once(
    watched: Sandbox, connect: Callable[[Sandbox, int], Client]
) -> None:
    stream, tunnel, poll, idle = (connect(watched, OUTER) for _ in range(4))
    command = connect(watched, 49983)
    stream.ask_for("/stream")
    stream.read_until(b"begun\r\n")
    tunnel.ask_for("/tunnel")
    tunnel.read_until(b"\r\n\r\n")
    poll.ask_for("/poll")
    _wait_for_note(watched, "/poll open")
    _start(command, watched, "sleep 1000")
    command.read_until(b"start")
    assert watched.kill()
    assert stream.end() == ("reset", b"")
    assert tunnel.end() == ("reset", b"")
    ended, read = command.end()
    assert ended == "reset"
    assert not read.endswith(b"0\r\n\r\n"), "no clean end"
    for client in (poll, idle):
        if client is idle:
            client.ask("/health")
        answer = client.read_until(b"}")
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
            "sandboxId": watched.sandbox_id,
            "message": "The sandbox was not found",
            "code": 502,
        }


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_process_lives_on_without_the_client_that_started_it(
    create: Callable[..., Sandbox], connect: Callable[[Sandbox, int], Client], how: str
) -> None:
    sandbox = create()
    client = connect(sandbox, 49983)
    _start(client, sandbox, "until [ -e /tmp/go ]; do echo waiting; sleep 0.1; done; >/tmp/lived")
    client.read_until(b"start")
    client.leave(how)
    sandbox.files.write("/tmp/go", "")
    wait_until(lambda: sandbox.files.exists("/tmp/lived"), 30)


@pytest.mark.exhaustive
def test_a_stream_outlives_a_guest_that_stands_still(
    watched: Sandbox, stack: Stack, connect: Callable[[Sandbox, int], Client]
) -> None:
    client = connect(watched, OUTER)
    client.ask_for("/tunnel")
    client.read_until(b"\r\n\r\n")
    with frozen(stack.vmm_pid(watched.sandbox_id)):
        client.socket.sendall(b"said while it stood still")
        client.socket.settimeout(3)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
    client.leave("close")
    assert _wait_for_note(watched, "/tunnel eof", "/tunnel reset") == "/tunnel eof"


def _listens(sandbox: Sandbox, port: int) -> bool:
    with sandbox.http(port) as client:
        return bool(client.get("/ready").status_code == 200)


def _wait_for_note(sandbox: Sandbox, *lines: str) -> str:
    """The first of the lines that the guest has noted."""

    def noted() -> str | None:
        notes = sandbox.files.read(NOTES).splitlines()
        return next((line for line in lines if line in notes), None)

    wait_until(lambda: noted() is not None, 20)
    found = noted()
    assert found is not None
    return found


def _start(client: Client, sandbox: Sandbox, command: str) -> None:
    """Run a command over Connect's streaming protocol, in JSON."""
    process = {"cmd": "/bin/sh", "args": ["-c", command]}
    message = json.dumps({"process": process, "stdin": False}).encode()
    token = sandbox._access.envd_access_token
    client.ask(
        "/process.Process/Start",
        "POST",
        "Content-Type: application/connect+json",
        "Connect-Protocol-Version: 1",
        f"X-Access-Token: {token}",
        f"Content-Length: {len(message) + 5}",
        body=b"\x00" + len(message).to_bytes(4) + message,
    )
