"""Sandboxes that the orchestrator is asked for directly, without API server and SDK.

The API server does not know of them and leaves them alone.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import grpc
import httpx2
from google.protobuf.timestamp_pb2 import Timestamp

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.shared.ids import new_run_id, new_sandbox_id
from emberbox.shared.protocol import ENVD_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from benchmarks.stack import Target

LIFE_SECONDS = 1800
_CALL_SECONDS = 180


class HostSandbox:
    """One sandbox through all its runs; it is gone after the block."""

    def __init__(self, target: Target) -> None:
        self.sandbox_id = new_sandbox_id()
        self._execution_id = ""
        self._token = uuid.uuid4().hex
        self._options: dict[str, Any] = {"metadata": target.metadata, "timeout": _CALL_SECONDS}
        self._channel = grpc.insecure_channel(target.orchestrator)
        self._sandboxes = pb_grpc.SandboxServiceStub(self._channel)
        self._templates = pb_grpc.TemplateServiceStub(self._channel)

    def __enter__(self) -> Self:
        try:
            request = pb.TemplateListRequest()
            templates = self._templates.List(request, **self._options).templates
            self._start(pb.SandboxConfig(template_id=templates[0].template_id))
        except BaseException:
            self._channel.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._channel:
            request = pb.SandboxDeleteRequest(sandbox_id=self.sandbox_id, reason="measured")
            self._sandboxes.Delete(request, **self._options)

    def pause(self) -> pb.SandboxPauseResponse:
        """Pause it; the answer."""
        request = pb.SandboxPauseRequest(
            sandbox_id=self.sandbox_id, execution_id=self._execution_id
        )
        answer: pb.SandboxPauseResponse = self._sandboxes.Pause(request, **self._options)
        return answer

    def resume(self) -> pb.SandboxCreateResponse:
        """Resume it; the answer. Raises RuntimeError when it did not go on where it was."""
        answer = self._start(pb.SandboxConfig(snapshot=True))
        if answer.notice:
            raise RuntimeError(answer.notice)
        return answer

    def write(self, path: str, content: bytes) -> None:
        """Write a file as root."""
        headers = {
            "E2b-Sandbox-Id": self.sandbox_id,
            "E2b-Sandbox-Port": str(ENVD_PORT),
            "X-Access-Token": self._token,
            "Content-Type": "application/octet-stream",
        }
        httpx2.post(
            f"{os.environ['EMBERBOX_SANDBOX_URL']}/files",
            params={"path": path, "username": "root"},
            content=content,
            headers=headers,
            timeout=_CALL_SECONDS,
        ).raise_for_status()

    def _start(self, config: pb.SandboxConfig) -> pb.SandboxCreateResponse:
        self._execution_id = new_run_id()
        config.sandbox_id = self.sandbox_id
        config.execution_id = self._execution_id
        config.envd_access_token = self._token
        end = Timestamp()
        end.FromSeconds(int(time.time()) + LIFE_SECONDS)
        request = pb.SandboxCreateRequest(sandbox=config, end_time=end)
        answer: pb.SandboxCreateResponse = self._sandboxes.Create(request, **self._options)
        return answer


def step(name: str, steps: Iterable[pb.Step]) -> float:
    """The milliseconds of one step of an answer."""
    return next(one.milliseconds for one in steps if one.name == name)
