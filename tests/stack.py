"""A whole Emberbox on this machine for the tests: `emberbox up` with a home and ports of its own.

The guest images are those of the machine's ordinary home: they take minutes to build and are the
same for everyone. All other state is the stack's own, its
orchestrator has a node id, network range and DNS port that no ordinary one uses.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.processes import identify, is_alive
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, SandboxRecord
from emberbox.shared.home import Home, default_home
from emberbox.shared.protocol import GRPC_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

READY_SECONDS = 300.0
STOP_SECONDS = 60.0
EMBERBOX = Path(sys.executable).with_name("emberbox")

NETWORK = {
    "EMBERBOX_NODE_ID": "integration-tests",
    "EMBERBOX_NETWORK_RANGE": "10.203.0.0/20",
    "EMBERBOX_DNS_PORT": "10353",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the stack's programs listen; the client proxy's health port is beside its port."""

    api: int
    proxy: int
    orchestrator: int
    data: int


class Stack:
    """One running `emberbox up`."""

    def __init__(self, home: Path, ports: Ports, extra: dict[str, str] | None = None) -> None:
        self.home = Home(home)
        self.ports = ports
        self.environment = {**os.environ, **NETWORK, **(extra or {}), "EMBERBOX_HOME": str(home)}
        self._up: subprocess.Popen[str] | None = None
        self.facts: dict[str, str] = {}

    def start(self) -> None:
        """Start `up` and wait until all is ready."""
        flags = [
            *("--api-port", self.ports.api, "--proxy-port", self.ports.proxy),
            *("--orchestrator-port", self.ports.orchestrator, "--data-port", self.ports.data),
        ]
        log = (self.home.root / "up.log").open("a")
        self._up = subprocess.Popen(
            [EMBERBOX, "up", "--json", *map(str, flags)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            process_group=0,
        )
        log.close()
        assert self._up.stdout is not None
        with self._up.stdout as lines:
            line = lines.readline()
        assert line, f"up did not get ready: {(self.home.root / 'up.log').read_text()}"
        self.facts = json.loads(line)

    def stop(self) -> int:
        """End `up` as Ctrl-C does; its exit status."""
        assert self._up is not None
        self._up.send_signal(signal.SIGINT)
        return self._up.wait(STOP_SECONDS)

    def kill_up(self) -> None:
        """SIGKILL `up` alone; the programs it started go on."""
        assert self._up is not None
        self._up.kill()
        self._up.wait()

    @property
    def sdk(self) -> dict[str, Any]:
        """Options of the SDK that reach this stack."""
        return {name: self.facts[name] for name in ("api_key", "api_url", "sandbox_url")}

    def pid_of(self, program: str) -> int:
        """The process of one of the three servers, as `ps` names it."""
        for comm in Path("/proc").glob("[0-9]*/comm"):
            if _text(comm).strip() == program[:15] and self._is_ours(comm.parent):
                return int(comm.parent.name)
        raise AssertionError(f"{program} does not run")

    def data_proxy_pids(self) -> list[int]:
        """The data proxy's workers."""
        records = (self.home.orchestrator / "data-proxy").glob("worker-*.json")
        return [json.loads(record.read_text())["process"]["pid"] for record in records]

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
        with grpc.insecure_channel(f"127.0.0.1:{self.ports.orchestrator}") as channel:
            secret = self.home.internal_secret.read_text().strip()
            answer = pb_grpc.SandboxServiceStub(channel).Get(
                pb.SandboxGetRequest(sandbox_id=sandbox_id),
                metadata=[(GRPC_SECRET_KEY, secret)],
                timeout=5,
            )
        return list(answer.story)

    def kill_program(self, program: str) -> None:
        """SIGKILL one server and wait until that process is gone."""
        identity = identify(self.pid_of(program))
        os.kill(identity.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(identity), 5)

    def _is_ours(self, process: Path) -> bool:
        return f"EMBERBOX_HOME={self.home.root}" in _text(process / "environ").split("\0")


def prepare_home(root: Path) -> Path:
    """A home that shares the machine's images."""
    images = default_home() / "images"
    images.mkdir(parents=True, exist_ok=True)
    (root / "images").symlink_to(images)
    return root


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Look until it is so. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.05)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process ended meanwhile
        return ""
