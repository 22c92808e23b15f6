"""Worker processes: started, adopted, restarted, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator import helpers
from emberbox.orchestrator.data_proxy import logbound
from emberbox.orchestrator.data_proxy.feed import RouteFeed
from emberbox.orchestrator.data_proxy.messages import Route
from emberbox.orchestrator.data_proxy.supervisor import DataProxyOptions, DataProxySupervisor
from emberbox.orchestrator.processes import identify, is_alive
from emberbox.shared import internal_secret
from emberbox.shared.errors import StartupError
from tests.stack import frozen
from tests.unit.data_proxy.stage import request
from tests.unit.proxying.peers import OK, Backend, Connection, answering
from tests.unit.proxying.resumes import Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emberbox._gen.emberbox.api.v1 import api_pb2 as pb


class World:
    """A feed and its supervisor, as an orchestrator has them."""

    def __init__(
        self, root: Path, port: int, workers: int = 1, api_address: str = "127.0.0.1:1"
    ) -> None:
        self.options = DataProxyOptions(
            directory=root / "data-proxy",
            feed_socket=root / "routes.sock",
            secret_file=root / "internal_secret",
            api_address=api_address,
            port=port,
            workers=workers,
            drain_timeout=0.2,
        )
        self.secret = internal_secret.load_or_create(self.options.secret_file)
        self.feed = RouteFeed()
        self.supervisor = DataProxySupervisor(self.options, self.feed)

    async def start(self, *routes: Route) -> None:
        for route in routes:
            await self.feed.put(route)
        await self.feed.start(self.options.feed_socket)
        await self.supervisor.start()

    async def ask(self, port: int) -> int:
        """The status of a request to a port of sandbox i1."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.options.port)
        connection = Connection(reader, writer)
        await connection.send(request(1, port, f"X-Emberbox-Internal-Secret: {self.secret}"))
        status = (await connection.read_message()).status
        connection.close()
        return status

    async def crash(self) -> None:
        """What is left of an orchestrator that was killed: its workers."""
        await self.supervisor.detach()
        await self.feed.close()

    async def stop(self) -> None:
        await self.supervisor.stop()
        await self.feed.close()


@pytest.fixture
async def guest() -> AsyncIterator[Backend]:
    backend = Backend(answering(OK))
    await backend.start()
    yield backend
    await backend.stop()


LOCAL = Route("i1", "e1", "127.0.0.1")


async def test_workers_outlive_the_orchestrator(
    tmp_path: Path, free_port: int, guest: Backend
) -> None:
    first = World(tmp_path, free_port, workers=2)
    await first.start(LOCAL)
    pids = first.supervisor.pids
    assert len(pids) == 2
    assert all(os.getsid(pid) == pid for pid in pids)
    await first.crash()
    assert await first.ask(guest.port) == 200
    second = World(tmp_path, free_port, workers=2)
    await second.start()
    assert second.supervisor.pids == pids
    assert await second.ask(guest.port) == 503, "the new orchestrator knows no such sandbox"
    identities = [identify(pid) for pid in pids]
    await second.stop()
    assert not any(is_alive(identity) for identity in identities)
    assert list(second.options.directory.glob("*.json")) == []


async def test_worker_that_stood_still_asks_for_the_table_before_it_answers(
    tmp_path: Path, free_port: int, guest: Backend
) -> None:
    world = World(tmp_path, free_port)
    await world.start()
    pids = world.supervisor.pids
    with frozen(*pids):
        await world.feed.put(LOCAL)
        assert world.feed.ready_pids == set(), "it was given up, and missed the route"
        asking = asyncio.create_task(world.ask(guest.port))
        await asyncio.sleep(0.1)
    assert await asking == 200
    await world.stop()


async def test_worker_has_a_sandbox_resumed(tmp_path: Path, free_port: int, guest: Backend) -> None:
    secret = internal_secret.load_or_create(tmp_path / "internal_secret")
    api = Api(secret)
    world = World(tmp_path, free_port, api_address=await api.start())

    async def resume(asked: pb.ResumeSandboxRequest) -> str:
        await world.feed.put(LOCAL)
        return LOCAL.execution_id

    await world.start()
    assert await world.ask(guest.port) == 502
    api.decide = resume
    assert await world.ask(guest.port) == 200
    await world.stop()
    await api.stop()


async def test_dead_worker_is_replaced(tmp_path: Path, free_port: int, guest: Backend) -> None:
    world = World(tmp_path, free_port)
    await world.start(LOCAL)
    (pid,) = world.supervisor.pids
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while world.supervisor.pids == {pid}:  # noqa: ASYNC110 - the supervisor has no event
            await asyncio.sleep(0.01)
        await world.feed.wait_ready(world.supervisor.pids)
    assert await world.ask(guest.port) == 200
    await world.stop()


async def test_workers_with_other_options_are_replaced(tmp_path: Path, free_port: int) -> None:
    first = World(tmp_path, free_port, workers=2)
    await first.start()
    pids = first.supervisor.pids
    await first.crash()
    fewer = World(tmp_path, free_port, workers=1)
    await fewer.start()
    (kept,) = fewer.supervisor.pids
    assert kept in pids
    assert len(list(fewer.options.directory.glob("*.json"))) == 1
    await fewer.stop()


async def test_workers_of_another_version_are_replaced(
    tmp_path: Path, free_port: int, guest: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = World(tmp_path, free_port)
    with monkeypatch.context() as patch:
        patch.setattr(helpers, "version", lambda name: f"older {name}")
        await old.start()
        (pid,) = old.supervisor.pids
        await old.crash()
    new = World(tmp_path, free_port)
    await new.start(LOCAL)
    assert new.supervisor.pids != {pid}
    assert await new.ask(guest.port) == 200
    await new.stop()


def of_process(pid: int) -> tuple[bytes, Path]:
    """Its environment and its working directory."""
    process = Path(f"/proc/{pid}")
    return (process / "environ").read_bytes(), (process / "cwd").readlink()


async def test_workers_get_no_secret_and_import_from_no_directory_of_others(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBERBOX_TEST_SECRET", "hidden")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "asyncio.py").write_text("raise SystemExit('imported from the directory')")
    monkeypatch.chdir(elsewhere)
    world = World(tmp_path, free_port)
    await world.start()
    (pid,) = world.supervisor.pids
    environment, directory = of_process(pid)
    await world.stop()
    assert b"hidden" not in environment
    assert directory == Path("/")


async def test_busy_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        world = World(tmp_path, port)
        with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1:{port}"):
            await world.start()
        await world.stop()


async def test_worker_that_cannot_start_is_told(tmp_path: Path, free_port: int) -> None:
    world = World(tmp_path, free_port)
    world.options.secret_file.chmod(0o644)
    with pytest.raises(StartupError, match=r"ended while starting: see .*worker-0\.log"):
        await world.start()
    assert "chmod 600" in (world.options.directory / "worker-0.log").read_text()
    assert list(world.options.directory.glob("*.json")) == []
    await world.stop()


def test_log_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    stderr = os.dup(2)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.dup2(fd, 2)
        os.write(2, b"x" * 100)
        assert not logbound.rotate_stderr(limit=100)
        os.write(2, b"x")
        assert logbound.rotate_stderr(limit=100)
        os.write(2, b"new")
    finally:
        os.dup2(stderr, 2)
        for opened in (fd, stderr):
            with contextlib.suppress(OSError):
                os.close(opened)
    assert path.read_bytes() == b"new"
    assert (tmp_path / "worker.log.1").read_bytes() == b"x" * 101
