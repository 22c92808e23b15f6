"""A whole machine in namespaces, with Emberbox on it: Docker's and ufw's firewall, a resolver on
127.0.0.53, and an internet behind it in which every address answers.

Programs and threads that talk to it must be inside its namespace: `inside` runs them there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from emberbox import Sandbox
from emberbox.orchestrator.network import netns, nft
from scripts.fake_internet import INTERNET_ADDRESSES, OTHER, PUBLIC
from tests.integration.hostile.servers import NameServer, PackageIndex, Witness
from tests.integration.network.world import World, write_resolv_conf
from tests.stack import LANE
from tests.stack_fixtures import new_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emberbox import CommandResult
    from emberbox.orchestrator.network.addresses import Slot
    from tests.conftest import FreePorts
    from tests.stack import Stack

T = TypeVar("T")

RESOLVER = "127.0.0.53"
HOST_PORT = 8088
"""A service of the host that listens on all its addresses."""
DATAGRAM_PORT = 9000
HELD_PORT = 81
"""Where connections are kept."""

NETWORK = {
    "EMBERBOX_NODE_ID": f"hostile-tests-{LANE}",
    # In namespaces of its own it may be the same for every lane.
    "EMBERBOX_NETWORK_RANGE": "10.11.0.0/20",
}

_AS_DOCKER_AND_UFW = (
    "-P FORWARD DROP",
    "-P INPUT DROP",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A INPUT -i lo -j ACCEPT",
    f"-A INPUT -p tcp --dport {HOST_PORT} -j ACCEPT",
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)


@dataclass
class Machine:
    """The machine while it runs."""

    world: World
    stack: Stack
    witness: Witness
    index: PackageIndex
    boxes: list[Box] = field(default_factory=list)

    def inside(self, function: Callable[[], T]) -> T:
        """Run in a thread on the machine."""
        return netns.run_in(self.world.host, function)

    def create(self, **options: Any) -> Box:
        """A sandbox, which ends with the test."""
        options = {"timeout": 300, **self.stack.sdk, **options}
        box = Box(self, self.inside(lambda: Sandbox.create(**options)))
        self.boxes.append(box)
        return box

    def connect(self, sandbox_id: str) -> Box:
        """One that is there; it ends with the test, too."""
        box = Box(self, self.inside(lambda: Sandbox.connect(sandbox_id, **self.stack.sdk)))
        self.boxes.append(box)
        return box

    def rest(self, method: str, path: str, body: object = None) -> httpx2.Response:
        """Ask the API."""
        url = self.stack.facts["api_url"] + path
        headers = {"X-API-KEY": self.stack.facts["api_key"]}
        return self.inside(
            lambda: httpx2.request(method, url, json=body, headers=headers, timeout=60)
        )

    def end_boxes(self) -> None:
        """Kill what `create` made."""
        while self.boxes:
            box = self.boxes.pop()
            self.inside(box.sandbox.kill)


@dataclass
class Box:
    """A sandbox of the machine."""

    machine: Machine
    sandbox: Sandbox

    @property
    def slot(self) -> Slot:
        """Its network."""
        stack = self.machine.stack
        return stack.network.slot(stack.record_of(self.sandbox.sandbox_id).slot)

    def run(self, command: str, **options: Any) -> CommandResult:
        """Run a command, as root unless said otherwise."""
        options = {"user": "root", "timeout": 120, **options}
        return self.machine.inside(lambda: self.sandbox.commands.run(command, **options))

    def write(self, path: str, data: str) -> None:
        """Write a file."""
        self.machine.inside(lambda: self.sandbox.files.write(path, data, user="root"))

    def begin(self, command: str) -> Path:
        """Run a command in the background; the file inside that takes what it prints."""
        output = Path(f"/tmp/{uuid.uuid4().hex}")
        self.run(f"nohup {command} >{output} 2>&1 &")
        return output

    def read(self, path: Path) -> str:
        """A file's content, empty when there is none."""
        return self.run(f"cat {path} 2>/dev/null || true").stdout

    def reaches(self, *addresses: str) -> list[bool]:
        """Whether TCP connections to port 80 are taken."""
        tries = (f"timeout 5 bash -c '</dev/tcp/{a}/80' && echo yes || echo no" for a in addresses)
        said = self.run("{ " + "; ".join(tries) + "; } 2>/dev/null", user="user").stdout
        return [line == "yes" for line in said.split()]


@contextlib.contextmanager
def machine(builds: Path, free_ports: FreePorts, home: Path) -> Iterator[Machine]:
    """Make one. Its template is a copy of the builds of another home, which takes no time."""
    with contextlib.ExitStack() as held:
        world = held.enter_context(World(f"m{os.getpid() % 4096:03x}"))
        netns.run_in(world.host, _raise_firewall)
        held.enter_context(NameServer(world, world.host, RESOLVER, PUBLIC))
        index = held.enter_context(PackageIndex(world.internet, PUBLIC))
        witness = held.enter_context(Witness(world))
        for address in (*INTERNET_ADDRESSES, OTHER):
            for port in (80, DATAGRAM_PORT):
                witness.listen(world.internet, address, port)
        for address in (PUBLIC, OTHER):
            witness.listen_and_hold(world.internet, address, HELD_PORT)
        witness.listen(world.host, "0.0.0.0", HOST_PORT)
        resolv_conf = write_resolv_conf(home, RESOLVER)
        stack = new_stack(free_ports, home, **NETWORK, EMBERBOX_RESOLV_CONF=str(resolv_conf))
        _copy(builds, stack.home.templates)
        netns.run_in(world.host, stack.start)
        try:
            yield Machine(world, stack, witness, index)
        finally:
            assert stack.stop() == 0


def _raise_firewall() -> None:
    iptables = nft.find_tool("iptables")
    assert iptables is not None
    for rule in _AS_DOCKER_AND_UFW:
        subprocess.run([iptables, *rule.split()], check=True)


def _copy(builds: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True)
    subprocess.run(["cp", "-a", "--link", str(builds), str(target)], check=True)
