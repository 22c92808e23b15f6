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


@dataclass
class Orchestrator:
    """The gRPC interface of a stack's orchestrator, whichever process serves it."""

    stack: Stack

    def call(self, method: str, request: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """One call of the sandbox service. Raises grpc.RpcError."""
        with grpc.insecure_channel(f"127.0.0.1:{self.stack.ports.orchestrator}") as channel:
            stub = pb_grpc.SandboxServiceStub(channel)
            secret = [(GRPC_SECRET_KEY, self.stack.home.internal_secret.read_text().strip())]
            return getattr(stub, method)(
                request, metadata=secret, timeout=seconds, wait_for_ready=True
            )

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
        """Start it from the base template."""
        return self._start(template_id=BASE_TEMPLATE_ID, **config)

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

    def kill(self) -> None:
        """End it, however it is; nothing when there is none."""
        try:
            self.orchestrator.call("Delete", pb.SandboxDeleteRequest(sandbox_id=self.sandbox_id))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND, error  # noqa: PT017

    def run(self, script: str) -> str:
        """What a script prints that must succeed, run as root in the guest."""
        port = self.orchestrator.stack.ports.proxy
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        headers = {
            "E2b-Sandbox-Id": self.sandbox_id,
            "E2b-Sandbox-Port": str(ENVD_PORT),
            "X-Access-Token": self.token,
        }
        ended = run_by_envd(connection, script, "root", headers)
        assert ended.succeeded, f"{script}: {ended}"
        return ended.output.strip()

    def settle(self) -> str:
        """`running` or `paused`, once it is one of them."""
        states: list[str] = []

        def look() -> bool:
            states[:] = [
                state
                for state, ids in (
                    ("running", self.orchestrator.running()),
                    ("paused", self.orchestrator.paused()),
                )
                if self.sandbox_id in ids
            ]
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
