from __future__ import annotations

import base64
import json
import pwd
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from emberbox.envd.server import Envd, Settings
from emberbox.envd.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.envd.cgroups import Cgroups

OTHER = pwd.getpwnam("daemon")
"""A user without rights that every Linux system has."""

HOST = "127.0.0.2"
"""Where the host's calls come from; who calls `/init` by HTTP may come from 127.0.0.1 as well."""


@dataclass
class RecordingSystem(System):
    """Tests must not change the clock and the name of the machine they run on."""

    done: list[tuple[str, object]] = field(default_factory=list)

    def set_clock(self, nanoseconds: int) -> None:
        self.done.append(("clock", nanoseconds))

    def add_entropy(self, seed: bytes) -> None:
        self.done.append(("entropy", seed))

    def set_hostname(self, name: str) -> None:
        self.done.append(("hostname", name))

    def renew_machine_id(self) -> None:
        self.done.append(("machine-id", None))


@dataclass
class Message:
    """One envelope of a stream."""

    flags: int
    body: dict[str, Any]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["event"]
        return found


class Stream:
    """A running streaming call."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._chunks = response.iter_raw()
        self._buffer = b""

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += next(self._chunks)
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def next(self) -> Message:
        flags, length = struct.unpack(">BI", self._take(5))
        return Message(flags, json.loads(self._take(length)))

    def rest(self) -> list[Message]:
        """All messages up to the end of the stream, which must be proper."""
        found = []
        while True:
            found.append(self.next())
            if found[-1].flags & 2:
                assert list(self._chunks) == []
                assert self._buffer == b""
                return found


def envelope(body: object) -> bytes:
    payload = json.dumps(body).encode()
    return struct.pack(">BI", 0, len(payload)) + payload


def output(messages: list[Message], kind: str = "stdout") -> bytes:
    pieces = (m.body.get("event", {}).get("data", {}).get(kind, "") for m in messages)
    return b"".join(base64.b64decode(piece) for piece in pieces)


class Client(httpx2.Client):
    """Raw HTTP against one envd."""

    def call(self, method: str, body: object = None, **headers: str) -> httpx2.Response:
        given = {"content-type": "application/json", **_named(headers)}
        return self.post(f"/{method}", content=json.dumps(body or {}), headers=given)

    @contextmanager
    def open_stream(self, method: str, body: object, **headers: str) -> Iterator[Stream]:
        given = {"content-type": "application/connect+json", **_named(headers)}
        with self.stream("POST", f"/{method}", content=envelope(body), headers=given) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/connect+json"
            yield Stream(response)

    def run(self, *argv: str, user: str | None = None, **more: Any) -> list[Message]:
        """Start, followed to the end."""
        headers = more.pop("headers", {}) | (basic(user) if user else {})
        with self.open_stream(START, start_request(*argv, **more), **headers) as stream:
            return stream.rest()


START = "process.Process/Start"


def start_request(*argv: str, **more: Any) -> dict[str, Any]:
    process = {"cmd": argv[0], "args": list(argv[1:])}
    process |= {name: more.pop(name) for name in ("cwd", "envs") if name in more}
    return {"process": process, "stdin": False, **more}


def basic(user: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:".encode()).decode()}


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Running:
    envd: Envd
    system: RecordingSystem
    url: str
    client: Client

    def init(self, **body: object) -> httpx2.Response:
        headers = {"x-access-token": self.envd.state.access_token or ""}
        return self.client.post("/init", json=body, headers=headers)


@contextmanager
def serving(cgroups: Cgroups | None = None) -> Iterator[Running]:
    system = RecordingSystem()
    # With its protocol named, or asyncio leaves Nagle's algorithm on: 40 ms for every answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        settings = Settings(port, "127.0.0.1", (HOST, "127.0.0.1"), guest_address="127.0.0.21")
        envd = Envd(settings, system=system, cgroups=cgroups)
        thread = envd.run(listener)
        with Client(base_url=url, timeout=20) as client:
            yield Running(envd, system, url, client)
        envd.stop()
        thread.join()


@pytest.fixture
def running() -> Iterator[Running]:
    """A daemon of the test's own, which it may initialize."""
    with serving() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def untold() -> Iterator[Running]:
    """A daemon for the tests that leave its state alone."""
    with serving() as daemon:
        yield daemon


@pytest.fixture
def client(untold: Running) -> Client:
    return untold.client


@pytest.fixture
def shared_dir(tmp_path: Path) -> Path:
    """A directory that another user can reach and write to."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    return tmp_path
