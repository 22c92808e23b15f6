"""The three servers alone, each started as from its own shell, without `up`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from emberbox import Sandbox, SandboxException
from tests import leaks
from tests.programs import Program
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import FreePorts
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart.py"
READY_SECONDS = 120


@dataclass(slots=True)
class Shells:
    """The three programs on the home of a stack whose `up` is stopped."""

    stack: Stack
    proxy_port: int
    health_port: int
    orchestrator: Program = field(init=False)
    api_server: Program = field(init=False)
    client_proxy: Program = field(init=False)

    def __post_init__(self) -> None:
        ports = self.stack.ports
        self.orchestrator = self._program(
            *("orchestrator", "--port", ports.orchestrator, "--data-port", ports.data),
            *("--api-internal", f"127.0.0.1:{ports.api_internal}"),
        )
        self.api_server = self._program(
            *("api-server", "--port", ports.api, "--internal-port", ports.api_internal),
            *("--orchestrators", f"127.0.0.1:{ports.orchestrator}"),
        )
        self.client_proxy = self._program(
            *("client-proxy", "--port", self.proxy_port, "--health-port", self.health_port),
            *("--data-proxy", f"127.0.0.1:{ports.data}"),
        )

    @property
    def all(self) -> list[Program]:
        """In no order that matters: each waits for the others."""
        return [self.api_server, self.client_proxy, self.orchestrator]

    @property
    def sdk(self) -> dict[str, Any]:
        """Options of the SDK that reach them."""
        sandbox_url = f"http://127.0.0.1:{self.proxy_port}"
        return {**self.stack.sdk, "sandbox_url": sandbox_url}

    def ready(self) -> bool:
        """Whether all three serve."""
        return (
            _answers(f"http://127.0.0.1:{self.stack.ports.api}/health")
            and _answers(f"http://127.0.0.1:{self.health_port}/health")
            and self.stack.template_ready()
        )

    def _program(self, name: str, *arguments: object) -> Program:
        log = self.stack.home.root / f"alone-{name}.log"
        return Program(name, [str(a) for a in arguments], self.stack.environment, log)


@pytest.fixture
def shells(stack: Stack, free_ports: FreePorts) -> Iterator[Shells]:
    """Started and ready; what a test leaves is ended, and `up` runs again afterwards."""
    free_port, health_port = free_ports(proxy=1, health=1)
    with stack.stopped():
        shells = Shells(stack, 443 if _is_free(443) else free_port, health_port)
        try:
            for program in shells.all:
                program.start()
            wait_until(shells.ready, READY_SECONDS)
            yield shells
        finally:
            for program in shells.all:
                if program.runs:
                    program.end()


@pytest.mark.exhaustive
def test_the_quickstart_passes(shells: Shells) -> None:
    variables = {f"EMBERBOX_{name.upper()}": value for name, value in shells.sdk.items()}
    done = subprocess.run(
        [sys.executable, QUICKSTART],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if shells.proxy_port == 443:
        assert "port 443 carries plain HTTP" in shells.client_proxy.log.read_text()

    for program in shells.all:
        assert program.end() == 0, program.log.read_text()


@pytest.mark.exhaustive
def test_a_sandbox_outlives_its_orchestrator_until_the_host_is_shut_down(shells: Shells) -> None:
    stack = shells.stack
    sandbox = Sandbox.create(timeout=300, **shells.sdk)
    sandbox.files.write("/home/user/kept", "before")
    process = stack.record_of(sandbox.sandbox_id).process

    assert shells.orchestrator.end() == 0
    assert sandbox.files.read("/home/user/kept") == "before"
    assert sandbox.commands.run("echo nobody watches").stdout == "nobody watches\n"

    shells.orchestrator.start()
    wait_until(lambda: _is_known(stack, sandbox), READY_SECONDS)
    assert stack.record_of(sandbox.sandbox_id).process == process
    assert sandbox.commands.run("echo adopted").stdout == "adopted\n"
    assert Sandbox.create(timeout=300, **shells.sdk).kill()

    assert stack.shut_down_host() == 1
    assert shells.orchestrator.wait() == 0
    assert not sandbox.is_running()
    left = leaks.wait_until_none(lambda: _left_on_the_machine(stack))
    assert not left, left
    assert shells.api_server.end() == 0
    assert shells.client_proxy.end() == 0


def _left_on_the_machine(stack: Stack) -> list[str]:
    machine, network = leaks.Machine.now(stack.home.root), stack.network
    return [
        *(vm for vm in machine.vms if f" emberbox-{network.tag}-" in vm),
        *(name for name in machine.namespaces if network.index_of_netns(name) is not None),
        *(link for link in machine.links if network.index_of_link(link) is not None),
        *(table for table in machine.tables if network.table in table),
        *(path.name for path in stack.home.run_directories.iterdir()),
        *(path.name for path in (stack.home.orchestrator / "data-proxy").glob("worker-*.json")),
    ]


def _is_known(stack: Stack, sandbox: Sandbox) -> bool:
    try:
        return stack.template_ready() and bool(sandbox.get_info())
    except SandboxException:
        return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
