"""Sandboxes that are paused and resumed through the orchestrator's own interface.

The API server does not know of them: it leaves alone what carries no name of its cluster.
"""

from __future__ import annotations

import http.client
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.templates.prepare import BASE_TEMPLATE_ID
from emberbox.shared.ids import new_run_id, new_sandbox_id
from emberbox.shared.protocol import ENVD_PORT, GRPC_SECRET_KEY
from tests.integration.images.guest import run_by_envd
from tests.stack import wait_until

if TYPE_CHECKING:
    from tests.stack import Stack

ANSWER_SECONDS = 120.0
# Every line is the one before plus one: a line that was lost or written twice shows.
APPENDER = """
import os, time
number = 0
with open("/root/appended", "a") as file:
    while True:
        number += 1
        file.write(f"{number}\\n")
        file.flush()
        time.sleep(0.02)
"""


@dataclass
class Orchestrator:
    """The gRPC interface of a stack's orchestrator, whichever process serves it."""

    stack: Stack

    def call(self, method: str, request: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """One call of the sandbox service. Raises grpc.RpcError."""
        return self.ask(pb_grpc.SandboxServiceStub, method, request, seconds)

    def ask(self, service: Any, method: str, request: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """One call of any of its services. Raises grpc.RpcError."""
        with grpc.insecure_channel(f"127.0.0.1:{self.stack.ports.orchestrator}") as channel:
            stub = service(channel)
            secret = [(GRPC_SECRET_KEY, self.stack.home.internal_secret.read_text().strip())]
            return getattr(stub, method)(
                request, metadata=secret, timeout=seconds, wait_for_ready=True
            )

    def delete_build(self, template: Any) -> None:
        """Remove what a checkpoint made. Raises grpc.RpcError."""
        request = pb.TemplateDeleteRequest(
            template_id=template.template_id, build_id=template.build_id
        )
        self.ask(pb_grpc.TemplateServiceStub, "Delete", request)

    def paused(self) -> dict[str, Any]:
        """What is paused, by sandbox id."""
        listed = self.call("ListPaused", pb.ListPausedRequest()).sandboxes
        return {one.sandbox_id: one for one in listed}

    def running(self) -> dict[str, Any]:
        """What is listed and runs, by sandbox id."""
        listed = self.call("List", pb.SandboxListRequest()).sandboxes
        return {one.sandbox_id: one for one in listed if one.state == "running"}


@dataclass
class PausableSandbox:
    """One sandbox through all its runs."""

    orchestrator: Orchestrator
    sandbox_id: str = field(default_factory=new_sandbox_id)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    execution_id: str = ""
    seconds: float = 600.0

    def create(self, **config: Any) -> Any:
        """Start it, from the base template if no other is named."""
        return self._start(**{"template_id": BASE_TEMPLATE_ID, **config})

    def resume(self, **config: Any) -> Any:
        """Continue it."""
        return self._start(snapshot=True, **config)

    def pause(self, *, files_only: bool = False) -> Any:
        """Pause it; what the snapshot takes."""
        request = pb.SandboxPauseRequest(
            sandbox_id=self.sandbox_id,
            execution_id=self.execution_id,
            filesystem_only=files_only,
        )
        return self.orchestrator.call("Pause", request).sandbox

    def checkpoint(self, *, files_only: bool = False) -> Any:
        """A template build of it, with its own ids."""
        request = pb.SandboxCheckpointRequest(
            sandbox_id=self.sandbox_id,
            execution_id=self.execution_id,
            template_id=new_sandbox_id(),
            build_id=new_run_id(),
            filesystem_only=files_only,
        )
        return self.orchestrator.call("Checkpoint", request)

    def kill(self) -> None:
        """End it, however it is; nothing when there is none."""
        try:
            self.orchestrator.call("Delete", pb.SandboxDeleteRequest(sandbox_id=self.sandbox_id))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND, error  # noqa: PT017

    def run(self, script: str, token: str | None = None) -> str:
        """What a script prints that must succeed, run as root in the guest."""
        port = self.orchestrator.stack.ports.proxy
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        headers = {
            "E2b-Sandbox-Id": self.sandbox_id,
            "E2b-Sandbox-Port": str(ENVD_PORT),
            "X-Access-Token": self.token if token is None else token,
        }
        ended = run_by_envd(connection, script, "root", headers)
        assert ended.succeeded, f"{script}: {ended}"
        return ended.output.strip()

    def refuses(self, token: str) -> bool:
        """Whether it does nothing for who presents this token."""
        try:
            self.run("true", token)
        except (AssertionError, ValueError):  # the answer is an error and no stream of events
            return True
        return False

    def settle(self) -> str:
        """`running` or `paused`, once it is one of them."""
        states: list[str] = []

        def look() -> bool:
            try:
                running, paused = self.orchestrator.running(), self.orchestrator.paused()
            except grpc.RpcError as error:  # it has just been killed
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
            found = (("running", running), ("paused", paused))
            states[:] = [state for state, ids in found if self.sandbox_id in ids]
            return bool(states)

        wait_until(look, ANSWER_SECONDS)
        [state] = states
        if state == "running":
            self.execution_id = self.orchestrator.running()[self.sandbox_id].execution_id
        return state

    def _start(self, **config: Any) -> Any:
        self.execution_id = new_run_id()
        request = pb.SandboxCreateRequest(
            sandbox=pb.SandboxConfig(
                sandbox_id=self.sandbox_id,
                execution_id=self.execution_id,
                envd_access_token=self.token,
                **config,
            ),
            end_time=datetime.fromtimestamp(time.time() + self.seconds, UTC),
        )
        return self.orchestrator.call("Create", request)


def failpoint_file(stack: Stack) -> Path:
    """Where the orchestrator of the stack looks for the step at which it is to fail."""
    return Path(stack.environment["EMBERBOX_FAILPOINTS"])


@dataclass
class Life:
    """What must survive in a guest: a process, files in memory and on the disk."""

    sandbox: PausableSandbox
    boot_id: str = ""
    pid: str = ""
    sums: str = ""
    lines: int = 0

    def begin(self, mib: int) -> None:
        """Start the process and write the files."""
        self.boot_id = self.sandbox.run("cat /proc/sys/kernel/random/boot_id")
        self.lines = 0
        self.pid = self.sandbox.run(
            "rm -f /root/appended\n"
            f"cat > /root/appender.py <<'END'\n{APPENDER}\nEND\n"
            f"head -c {mib}M /dev/urandom > /dev/shm/data\n"
            f"head -c {mib}M /dev/urandom > /root/data\n"
            "setsid python3 /root/appender.py > /dev/null 2>&1 < /dev/null & echo $!"
        )
        self.sums = self.sandbox.run("sha256sum /dev/shm/data /root/data")

    def check(self) -> None:
        """It goes on where it was."""
        assert self.sandbox.run("cat /proc/sys/kernel/random/boot_id") == self.boot_id
        assert self.sandbox.run("sha256sum /dev/shm/data /root/data") == self.sums
        wait_until(self._has_gone_on, 60)
        assert self.sandbox.run(f"cat /proc/{self.pid}/comm").startswith("python3")

    def check_files(self) -> None:
        """Another boot with every file."""
        assert self.sandbox.run("cat /proc/sys/kernel/random/boot_id") != self.boot_id
        disk_sum = self.sums.splitlines()[1]
        assert self.sandbox.run("sha256sum /root/data") == disk_sum
        assert self._count_lines() >= self.lines

    def _has_gone_on(self) -> bool:
        before, self.lines = self.lines, self._count_lines()
        assert self.lines >= before
        return self.lines > before

    def _count_lines(self) -> int:
        """All whole lines, each with the number that it must have."""
        return int(
            self.sandbox.run(
                'python3 -c \'lines = open("/root/appended").read().split("\\n")[:-1];'
                " assert lines == [str(i + 1) for i in range(len(lines))]; print(len(lines))'"
            )
        )
