"""Hosts of a cluster on one machine: each in a network namespace of its own, on one bridge."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.shared.home import Home
from emberbox.shared.protocol import GRPC_SECRET_KEY
from tests.programs import Program
from tests.stack import LANE, prepare_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = f"ebc{LANE}"
_NETWORK = f"10.219.{LANE}"
BRIDGE_ADDRESS = f"{_NETWORK}.1"
_PORT, _DATA_PORT = 8080, 5007


class Bridge:
    """The switch that all hosts hang on; the machine itself has an address on it."""

    def start(self) -> None:
        """Make it; what a run before may have left goes first."""
        self.remove()
        _ip(f"link add {_NAME} type bridge")
        _ip(f"addr add {BRIDGE_ADDRESS}/24 dev {_NAME}")
        _ip(f"link set {_NAME} up")

    def remove(self) -> None:
        """Take it away."""
        subprocess.run(["ip", "link", "del", _NAME], check=False, capture_output=True)


class Host:
    """One orchestrator, with a home, a namespace and a link of its own."""

    def __init__(self, number: int, home: Path, secret: Path, environment: dict[str, str]) -> None:
        self.node_id = f"cluster-{LANE}-{number}"
        self.address = f"{_NETWORK}.{10 + number}"
        self.home = Home(home)
        self._secret = secret
        self._link = f"{_NAME}-{number}"
        home.mkdir()
        prepare_home(home)
        self.program = Program(
            "orchestrator",
            ["--port", str(_PORT), "--data-port", str(_DATA_PORT), "--host", self.address],
            {
                **environment,
                "EMBERBOX_HOME": str(home),
                "EMBERBOX_NODE_ID": self.node_id,
                "EMBERBOX_DATA_HOST": self.address,
                "EMBERBOX_INTERNAL_SECRET_FILE": str(secret),
            },
            home / "orchestrator.log",
            # Not `ip netns exec`: in its mount namespace nobody else would see the namespaces
            # that the orchestrator names.
            before=("nsenter", f"--net=/run/netns/{self._link}"),
        )

    def connect(self) -> None:
        """Make the namespace and the link."""
        subprocess.run(["ip", "netns", "del", self._link], check=False, capture_output=True)
        _ip(f"netns add {self._link}")
        _ip(f"link add {self._link} type veth peer name eth0 netns {self._link}")
        _ip(f"link set {self._link} master {_NAME} up")
        for command in (
            "link set lo up",
            f"addr add {self.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {BRIDGE_ADDRESS}",
        ):
            _ip(f"-n {self._link} {command}")

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Nobody reaches it inside the block, and it reaches nobody."""
        _ip(f"link set {self._link} down")
        try:
            yield
        finally:
            _ip(f"link set {self._link} up")

    def take_templates_of(self, other: Host) -> None:
        """Have its builds, so that what is paused on one can go on on the other."""
        self.home.orchestrator.mkdir(mode=0o700)
        # Its disks are mostly holes.
        places = [str(other.home.templates), str(self.home.templates)]
        subprocess.run(["cp", "-a", "--sparse=always", *places], check=True)

    def ready(self) -> bool:
        """Whether it offers its template."""
        try:
            with self._channel() as channel:
                stub = pb_grpc.InfoServiceStub(channel)
                return bool(stub.ServiceInfo(pb.ServiceInfoRequest(), **self._call).ready)
        except grpc.RpcError:
            return False

    def running(self) -> dict[str, str]:
        """Execution ids by sandbox id of what it has. Raises grpc.RpcError."""
        with self._channel() as channel:
            answer = pb_grpc.SandboxServiceStub(channel).List(pb.SandboxListRequest(), **self._call)
        return {one.sandbox_id: one.execution_id for one in answer.sandboxes}

    def shut_down(self) -> None:
        """End its sandboxes and itself, and take its namespace away."""
        if self.program.runs:
            with self._channel() as channel:
                stub = pb_grpc.HostServiceStub(channel)
                stub.Shutdown(pb.ShutdownRequest(), metadata=self._metadata, timeout=60)
            self.program.wait()
        subprocess.run(["ip", "netns", "del", self._link], check=False, capture_output=True)

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"{self.address}:{_PORT}")

    @property
    def _metadata(self) -> list[tuple[str, str]]:
        return [(GRPC_SECRET_KEY, self._secret.read_text().strip())]

    @property
    def _call(self) -> dict[str, object]:
        return {"metadata": self._metadata, "timeout": 5}


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {words}: {done.stderr}"
