"""/health, /envs, /metrics, /init, /bridge and the access token."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from emberbox.envd.bridge import listening_hosts
from emberbox.envd.server import Envd, Settings
from emberbox.envd.system import System
from tests.unit.envd.conftest import Client, RecordingSystem, Running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from emberbox.envd.asgi import Event

REFUSED = "unauthorized access, please provide a valid access token or method signing if supported"


def test_health(client: Client) -> None:
    answer = client.get("/health")
    assert (answer.status_code, answer.content) == (204, b"")


def test_unknown_endpoints(client: Client) -> None:
    for method, path in (("GET", "/nope"), ("PUT", "/files"), ("POST", "/freeze"), ("GET", "//")):
        answer = client.request(method, path)
        assert answer.status_code == 404
        assert answer.json()["code"] == 404


def test_metrics(client: Client) -> None:
    found = client.get("/metrics").json()
    assert found.keys() == {
        "ts", "cpu_count", "cpu_used_pct", "mem_total", "mem_used", "mem_cache",
        "mem_total_mib", "mem_used_mib", "disk_used", "disk_total",
    }  # fmt: skip
    assert abs(found["ts"] - time.time()) < 5
    assert 0 <= found["cpu_used_pct"] <= 100
    assert 0 < found["mem_used"] < found["mem_total"]
    assert found["mem_total_mib"] == found["mem_total"] // 2**20
    assert 0 < found["disk_used"] <= found["disk_total"]


# The token


def test_token_guards_all_but_the_open_paths(running: Running) -> None:
    client = running.client
    assert client.get("/envs").status_code == 200
    assert running.init(accessToken="secret").status_code == 204
    for token in (b"", b"wrong", "sécret".encode()):
        headers = [(b"x-access-token", token)]
        for method, path in (
            ("GET", "/envs"),
            ("GET", "/metrics"),
            ("POST", "/process.Process/Start"),
            ("POST", "/filesystem.Filesystem/Stat"),
            ("POST", "/health"),
            ("GET", "/nope"),
        ):
            answer = client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()) == (401, {"code": 401, "message": REFUSED})
    assert client.get("/health").status_code == 204
    right = {"x-access-token": "secret"}
    assert client.get("/envs", headers=right).json() == {"E2B_SANDBOX": "true"}
    assert client.call("process.Process/List", x_access_token="secret").status_code == 200


def test_later_init_needs_the_token_and_may_change_it(running: Running) -> None:
    client = running.client
    assert running.init(accessToken="one").status_code == 204
    for headers in ({}, {"x-access-token": "two"}):
        refused = client.post("/init", json={"accessToken": "two"}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, 401)
    assert running.init(accessToken="two").status_code == 204
    assert client.get("/envs", headers={"x-access-token": "one"}).status_code == 401
    assert running.init().status_code == 204
    assert client.get("/envs", headers={"x-access-token": "two"}).status_code == 200
    assert running.init(accessToken=None).status_code == 204
    assert client.get("/envs").status_code == 200


# /init


def test_init_sets_everything_and_tells_the_version(running: Running) -> None:
    answer = running.init(
        sandboxId="isbx",
        templateId="base",
        lifecycleId="l1",
        accessToken="t",
        envVars={"A": "1"},
        defaultUser="daemon",
        defaultWorkdir="/tmp",
        timestamp="2026-11-22T10:00:00.123456789Z",
        hostname="isbx",
        randomSeed=base64.b64encode(b"s" * 64).decode(),
    )
    assert (answer.status_code, answer.headers["x-envd-version"]) == (204, "0.6.13")
    assert running.system.done == [
        ("clock", 1795341600123456789),
        ("entropy", b"s" * 64),
        ("hostname", "isbx"),
        ("machine-id", None),
    ]
    envs = running.client.get("/envs", headers={"x-access-token": "t"}).json()
    assert envs == {
        "E2B_SANDBOX": "true",
        "E2B_SANDBOX_ID": "isbx",
        "E2B_TEMPLATE_ID": "base",
        "A": "1",
    }
    state = running.envd.state
    assert (state.default_user, state.default_workdir, state.lifecycle_id) == (
        "daemon",
        "/tmp",
        "l1",
    )


def test_init_again_keeps_what_is_absent(running: Running) -> None:
    assert running.init(sandboxId="isbx", envVars={"A": "1"}).status_code == 204
    running.system.done.clear()
    assert running.init(sandboxId="isbx").status_code == 204
    assert running.system.done == [], "the same sandbox keeps its machine id"
    assert running.client.get("/envs").json()["A"] == "1"
    assert running.init(envVars={"B": "2"}).status_code == 204
    assert "A" not in running.client.get("/envs").json()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-13-22T10:00:00Z"}, "timestamp"),
        ({"randomSeed": "*"}, "randomSeed"),
        ({"envVars": {"A": 1}}, "envVars"),
        ({"envVars": []}, "envVars"),
        ({"accessToken": 1}, "accessToken"),
        ({"hostname": "a b"}, "hostname"),
        ({"hostname": ""}, "hostname"),
        ({"hostname": ".a"}, "hostname"),
        ({"hostname": "a-"}, "hostname"),
        ({"hostname": "é"}, "hostname"),
        ({"hostname": "a" * 65}, "hostname"),
    ],
)
def test_bad_init_changes_nothing(running: Running, body: dict[str, object], field: str) -> None:
    answer = running.init(**({"accessToken": "t", "defaultUser": "x"} | body))
    assert answer.status_code == 400
    assert f"'{field}'" in answer.json()["message"]
    assert running.envd.state.access_token is None
    assert running.envd.state.default_user == "root"
    assert running.system.done == []


def test_init_body_that_is_no_object(client: Client) -> None:
    for content in (b"[]", b"{", b'"x"'):
        assert client.post("/init", content=content).status_code == 400
    assert client.post("/init", content=b" " * 5_000_000).status_code == 413


async def ask(envd: Envd, path: str, body: object, peer: str) -> tuple[int, dict[str, object]]:
    """A request from an address that a test cannot have."""
    sent: list[Event] = []

    async def receive() -> Event:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Event) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [],
        "client": (peer, 4711),
    }  # fmt: skip
    await envd.app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"] or b"{}")


@pytest.fixture
def guest() -> Envd:
    """As in the VM, apart from the address it bridges on."""
    return Envd(Settings(guest_address="127.0.0.21"), system=RecordingSystem())


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "10.11.0.3", "169.254.0.21", ""])
async def test_init_from_elsewhere(guest: Envd, peer: str) -> None:
    status, body = await ask(guest, "/init", {"accessToken": "mine"}, peer)
    assert (status, body["code"]) == (403, 403)
    assert guest.state.access_token is None


async def test_init_from_the_gateway(guest: Envd) -> None:
    status, _ = await ask(guest, "/init", {"accessToken": "t"}, "169.254.0.22")
    assert status == 204
    assert guest.state.access_token == "t"


def test_hostname_is_resolvable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "sethostname", lambda name: None)
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 old\n::1 localhost")
    system = System(tmp_path)
    system.set_hostname("new")
    assert (tmp_path / "hostname").read_text() == "new\n"
    expected = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 new\n"
    assert (tmp_path / "hosts").read_text() == expected


def test_machine_id_is_renewed_where_there_is_one(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.renew_machine_id()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "machine-id").write_text("old")
    system.renew_machine_id()
    first = (tmp_path / "machine-id").read_text()
    assert len(first) == 33
    assert int(first, 16) >= 0
    system.renew_machine_id()
    assert (tmp_path / "machine-id").read_text() != first


def test_entropy_is_taken_by_the_kernel() -> None:
    System().add_entropy(bytes(64))


# /bridge


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "127.0.0.21", ""])
async def test_bridge_from_inside(guest: Envd, peer: str) -> None:
    status, _ = await ask(guest, "/bridge", {"port": 80}, peer)
    assert status == 403


@pytest.mark.parametrize("port", [0, 65536, "80", None, 49983, 1.5])
async def test_bridge_to_no_port(guest: Envd, port: object) -> None:
    status, _ = await ask(guest, "/bridge", {"port": port}, "10.11.0.3")
    assert status == 400


OUTSIDE = "10.11.0.3"


@asynccontextmanager
async def echo_server(host: str = "127.0.0.1") -> AsyncIterator[tuple[asyncio.Server, int]]:
    """Sends a greeting, then all it gets once the client has ended its half."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        try:
            writer.write(await reader.read())
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server, server.sockets[0].getsockname()[1]


async def test_bridge_carries_both_ways_and_half_closes(guest: Envd) -> None:
    data = bytes(3_000_000)
    async with echo_server() as (_, port):
        for _ in range(2):
            assert await ask(guest, "/bridge", {"port": port}, OUTSIDE) == (200, {"bridged": True})
        reader, writer = await asyncio.open_connection("127.0.0.21", port)
        assert await reader.readexactly(6) == b"hello "
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        await writer.wait_closed()
    guest.bridges.close_all()


async def test_nothing_to_bridge(guest: Envd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert await ask(guest, "/bridge", {"port": port}, OUTSIDE) == (200, {"bridged": False})


async def test_port_open_on_all_addresses_needs_no_bridge(guest: Envd) -> None:
    async with echo_server("0.0.0.0") as (_, port):
        assert await ask(guest, "/bridge", {"port": port}, OUTSIDE) == (200, {"bridged": True})
        assert listening_hosts(port) == {"0.0.0.0"}


async def test_reset_is_passed_on(guest: Envd) -> None:
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    class Inner(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(b"x")  # type: ignore[attr-defined]

        def connection_lost(self, exc: Exception | None) -> None:
            ended.set_result(exc)

    server = await asyncio.get_running_loop().create_server(Inner, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await ask(guest, "/bridge", {"port": port}, OUTSIDE)
    reader, writer = await asyncio.open_connection("127.0.0.21", port)
    await reader.readexactly(1)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
    assert isinstance(await ended, ConnectionResetError)
    server.close()
    guest.bridges.close_all()


async def test_bridge_goes_with_the_program_behind_it(guest: Envd) -> None:
    async with echo_server() as (_, port):
        await ask(guest, "/bridge", {"port": port}, OUTSIDE)
        assert listening_hosts(port) == {"127.0.0.1", "127.0.0.21"}
    reader, _writer = await asyncio.open_connection("127.0.0.21", port)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert listening_hosts(port) == set()
    _writer.close()
    guest.bridges.close_all()


async def test_bridge_goes_also_when_nobody_connects(guest: Envd) -> None:
    async with echo_server() as (_, port):
        await ask(guest, "/bridge", {"port": port}, OUTSIDE)
    async with asyncio.timeout(10):
        while listening_hosts(port):  # noqa: ASYNC110 - the kernel gives no event for it
            await asyncio.sleep(0.05)


def test_websocket_upgrade_is_refused_politely(running: Running) -> None:
    answer = httpx2.get(
        f"{running.url}/health", headers={"connection": "upgrade", "upgrade": "websocket"}
    )
    assert answer.status_code == 204
