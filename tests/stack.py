"""A whole Emberbox on this machine for the tests: `emberbox up` with a home and ports of its own.

The guest images are those of the machine's ordinary home: they take minutes to build and are the
same for everyone. All other state is the stack's own, its
orchestrator has a node id, network range and DNS port that no ordinary one uses.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.images.manifest import KINDS
from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.processes import identify, is_alive
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, SandboxRecord
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import GRPC_SECRET_KEY
from scripts.running import EMBERBOX, NotReadyError, Up

__all__ = [
    "EMBERBOX",
    "TIME_TO_BOOT",
    "Ports",
    "Stack",
    "frozen",
    "output_of",
    "prepare_home",
    "wait_until",
]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LANE = int(os.environ.get("EMBERBOX_TEST_LANE", "0"))
"""Test runs with different lanes, 0 to 15, can share a machine."""

TIME_TO_BOOT = 180
"""Seconds within which a VM boots from its files even on a busy machine."""

SETTINGS = {
    "EMBERBOX_NODE_ID": f"integration-tests-{LANE}",
    "EMBERBOX_NETWORK_RANGE": f"10.203.{16 * LANE}.0/20",
    "EMBERBOX_DNS_PORT": str(10353 + LANE),
    # Fewer than usual: on a busy machine each takes its time to be made.
    "EMBERBOX_POOL_SIZE": "2",
    "EMBERBOX_CREATE_TIMEOUT": str(TIME_TO_BOOT),
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the stack's programs listen; the client proxy's health port is beside its port."""

    api: int
    api_internal: int
    proxy: int
    orchestrator: int
    data: int


class Stack:
    """One running `emberbox up`."""

    def __init__(self, home: Path, ports: Ports, extra: dict[str, str] | None = None) -> None:
        self.home = Home(home)
        self.ports = ports
        self.environment = {**os.environ, **SETTINGS, **(extra or {}), "EMBERBOX_HOME": str(home)}
        self._up: Up | None = None

    def start(self, *more: str, **settings: str) -> None:
        """Start `up`, with more flags and settings than usual, and wait until all is ready."""
        flags = [
            *("--api-port", self.ports.api, "--api-internal-port", self.ports.api_internal),
            *("--proxy-port", self.ports.proxy),
            *("--orchestrator-port", self.ports.orchestrator, "--data-port", self.ports.data),
        ]
        with (self.home.root / "up.log").open("a") as log:
            try:
                self._up = Up.start(
                    [*map(str, flags), *more], {**self.environment, **settings}, log
                )
            except NotReadyError:
                told = (self.home.root / "up.log").read_text()
                raise AssertionError(f"up did not get ready: {told}") from None

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End `up` as Ctrl-C does, or by another signal; its exit status."""
        return self._running.stop(number)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """No `up` runs inside the block; afterwards there is one again."""
        assert self.stop() == 0
        try:
            yield
        finally:
            if self._running.process.poll() is None:  # a test failed in between
                self.stop()
            self.start()

    @contextmanager
    def restarted(self, *more: str, **settings: str) -> Iterator[None]:
        """`up` runs with these flags and settings in the block; it ends with its sandboxes."""
        with self.stopped():
            self.start(*more, **settings)
            try:
                yield
            finally:
                assert self.stop() == 0

    def kill_up(self) -> None:
        """SIGKILL `up` alone; the programs it started go on."""
        self._running.process.kill()
        self._running.process.wait()

    @property
    def facts(self) -> dict[str, str]:
        """What `up` said when all was ready."""
        return self._running.facts

    @property
    def _running(self) -> Up:
        assert self._up is not None
        return self._up

    @property
    def network(self) -> NodeNetwork:
        """Names and addresses of its sandboxes' networks."""
        return NodeNetwork.of_node(
            self.environment["EMBERBOX_NODE_ID"],
            IPv4Network(self.environment["EMBERBOX_NETWORK_RANGE"]),
            dns_port=int(self.environment["EMBERBOX_DNS_PORT"]),
        )

    @property
    def sdk(self) -> dict[str, Any]:
        """Options of the SDK that reach this stack."""
        return self._running.sdk

    def emberbox(self, *arguments: str) -> str:
        """What a command prints that works on this stack's home."""
        return output_of(*arguments, environment=self.environment)

    def sdk_of_new_team(self, *limits: str) -> dict[str, Any]:
        """Options of the SDK for a team of its own; `limits`: flags of `emberbox team create`."""
        name = f"team-{uuid.uuid4().hex[:8]}"
        self.emberbox("team", "create", name, *limits)
        return {**self.sdk, "api_key": self.emberbox("key", "create", "--team", name).strip()}

    def end_of(self, sandbox_id: str) -> tuple[str, str] | None:
        """How the API server recorded that a sandbox ended: outcome and reason."""
        # Not by a URL in read-only mode: that cannot read a write-ahead log without its index.
        with closing(sqlite3.connect(self.home.database)) as database:
            rows = database.execute(
                "SELECT state, end_reason FROM sandboxes"
                " WHERE sandbox_id = ? AND ended_at IS NOT NULL",
                (sandbox_id,),
            ).fetchall()
        return (rows[0][0], rows[0][1] or "") if rows else None

    def wait_for_end_of(self, sandbox_id: str, seconds: float = 20) -> tuple[str, str]:
        """The same, once it is there: the record follows what clients see."""
        wait_until(lambda: self.end_of(sandbox_id) is not None, seconds)
        end = self.end_of(sandbox_id)
        assert end is not None
        return end

    def pid_of(self, program: str) -> int:
        """The process of one of the three servers, as `ps` names it."""
        found = [
            int(comm.parent.name)
            for comm in Path("/proc").glob("[0-9]*/comm")
            if _text(comm).strip() == program[:15] and self._is_ours(comm.parent)
        ]
        assert found, f"{program} does not run"
        # A child that it is starting has its name, too, for a moment.
        return min(found, key=_age)

    def data_proxy_pids(self) -> list[int]:
        """The data proxy's workers."""
        records = (self.home.orchestrator / "data-proxy").glob("worker-*.json")
        return [json.loads(record.read_text())["process"]["pid"] for record in records]

    def dns_pid(self) -> int | None:
        """The DNS forwarder, while there is one."""
        try:
            record = json.loads((self.home.orchestrator / "network" / "dns.json").read_text())
        except FileNotFoundError:
            return None
        return int(record["process"]["pid"])

    def record_of(self, sandbox_id: str) -> SandboxRecord:
        """What the orchestrator has written down of a sandbox."""
        path = self.home.run_directories / sandbox_id / RECORD_FILE
        return SandboxRecord.from_json(path.read_bytes())

    def vmm_pid(self, sandbox_id: str) -> int:
        """The VMM of a sandbox."""
        process = self.record_of(sandbox_id).process
        assert process is not None
        assert is_alive(process)
        return process.pid

    def story_of(self, sandbox_id: str) -> list[str]:
        """What the orchestrator tells of a sandbox. Raises grpc.RpcError."""
        request = pb.SandboxGetRequest(sandbox_id=sandbox_id)
        with self.channel() as channel:
            stub = pb_grpc.SandboxServiceStub(channel)
            answer = stub.Get(request, metadata=self.secret, timeout=5)
        return list(answer.story)

    def template_ready(self) -> bool:
        """Whether an orchestrator answers and offers its template."""
        info = self._info()
        return info is not None and bool(info.ready)

    def warm_clones(self) -> set[str]:
        """The clones in the pool, by name, made or not."""
        return {directory.name for directory in self.home.pool.iterdir()}

    def wait_for_warm_clones(self, seconds: float = 200) -> set[str]:
        """Wait until the pool has all that it wants; which."""
        wait_until(self._pool_is_full, seconds)
        return self.warm_clones()

    def _pool_is_full(self) -> bool:
        info = self._info()
        return info is not None and info.pool_ready == info.pool_wanted > 0

    def _info(self) -> Any:
        """ServiceInfo; None while no orchestrator answers."""
        try:
            with self.channel() as channel:
                stub = pb_grpc.InfoServiceStub(channel)
                return stub.ServiceInfo(pb.ServiceInfoRequest(), metadata=self.secret, timeout=5)
        except grpc.RpcError:
            return None

    def shut_down_host(self) -> int:
        """Ask the orchestrator to end all sandboxes and itself; how many there were."""
        with self.channel() as channel:
            stub = pb_grpc.HostServiceStub(channel)
            answer = stub.Shutdown(pb.ShutdownRequest(), metadata=self.secret, timeout=60)
        return int(answer.sandboxes_ended)

    def kill_program(self, program: str) -> None:
        """SIGKILL one server and wait until that process is gone."""
        identity = identify(self.pid_of(program))
        os.kill(identity.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(identity), 5)

    def channel(self) -> grpc.Channel:
        """To the orchestrator; every call shows `secret`."""
        return grpc.insecure_channel(f"127.0.0.1:{self.ports.orchestrator}")

    @property
    def secret(self) -> list[tuple[str, str]]:
        """What our own programs show one another, as metadata."""
        return [(GRPC_SECRET_KEY, self.home.internal_secret.read_text().strip())]

    def _is_ours(self, process: Path) -> bool:
        return f"EMBERBOX_HOME={self.home.root}" in _text(process / "environ").split("\0")


def output_of(*arguments: str, environment: dict[str, str]) -> str:
    """What `emberbox` prints when it is called so; it succeeds."""
    done = subprocess.run(
        [EMBERBOX, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def prepare_home(root: Path) -> Path:
    """A home that shares the machine's images, and pins them in a store of its own."""
    images = default_home() / "images"
    (root / "images").mkdir()
    for kind in KINDS:
        (root / "images" / kind).symlink_to(images / kind)
    return root


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """The processes stand still while the block runs."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Look until it is so. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.05)


def _age(pid: int) -> int:
    """When a process was started, in clock ticks; one that is gone is the youngest."""
    try:
        return identify(pid).start_time_ticks
    except ProcessLookupError:
        return sys.maxsize


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process ended meanwhile
        return ""
