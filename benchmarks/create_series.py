"""Creates of one kind, one after the other."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import httpx2
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.figures import Clock, percentiles, progress
from emberbox import Sandbox
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.shared.ids import new_run_id, new_sandbox_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.stack import Stack

LIFE_SECONDS = 600
_BOOT_SECONDS = 180


@dataclass(slots=True)
class Series:
    """Times in milliseconds; steps by their names."""

    ready: list[float] = field(default_factory=list)
    first_command: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)

    def add(self, times: tuple[float, float]) -> None:
        """Until it was ready, and until its first command had run."""
        self.ready.append(times[0])
        self.first_command.append(times[1])

    def add_steps(self, steps: Mapping[str, float]) -> None:
        """Where the time of one went."""
        for name, milliseconds in steps.items():
            self.steps.setdefault(name, []).append(milliseconds)

    def result(self) -> dict[str, Any]:
        """What is printed of it."""
        result: dict[str, Any] = {"ready_ms": percentiles(self.ready), "runs": len(self.ready)}
        if self.first_command:
            result["first_command_ms"] = percentiles(self.first_command)
        if self.steps:
            result["steps_ms"] = {name: percentiles(times) for name, times in self.steps.items()}
        return result


def through_sdk(sdk: Mapping[str, Any]) -> tuple[float, float]:
    """Create, run `true`, kill: milliseconds from the beginning until each of the first two."""
    ready, command = Clock(), Clock()
    with ExitStack() as ended, command.running():
        with ready.running():
            sandbox = ended.enter_context(Sandbox.create(timeout=LIFE_SECONDS, **sdk))
        sandbox.commands.run("true")
        ended.pop_all()
    sandbox.kill()
    return ready.ms, command.ms


def steps_of(stack: Stack, count: int) -> dict[str, Any]:
    """Where a create's time goes, by `Server-Timing`, the pool being full where there is one."""
    series = Series()
    headers = {"X-API-KEY": stack.sdk["api_key"]}
    with httpx2.Client(base_url=stack.sdk["api_url"], headers=headers, timeout=60) as client:
        for number in range(count):
            stack.refilled()
            body = {"templateID": "base", "timeout": LIFE_SECONDS}
            answer = client.post("/v2/sandboxes", json=body)
            answer.raise_for_status()
            series.add_steps(_server_timing(answer.headers["Server-Timing"]))
            client.delete(f"/sandboxes/{answer.json()['sandboxID']}").raise_for_status()
            progress("steps", number + 1, count)
    return {name: percentiles(times) for name, times in series.steps.items()}


def _server_timing(header: str) -> dict[str, float]:
    steps = (step.partition(";dur=") for step in header.split(", "))
    return {name: float(milliseconds) for name, _, milliseconds in steps}


class Host:
    """The orchestrator, asked directly for what the API has no option for."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def boot(self, series: Series) -> None:
        """One sandbox whose kernel is booted."""
        with grpc.insecure_channel(self._stack.orchestrator) as channel:
            metadata = self._stack.metadata
            templates = pb_grpc.TemplateServiceStub(channel).List(
                pb.TemplateListRequest(), metadata=metadata
            )
            request = _request(templates.templates[0].template_id)
            stub = pb_grpc.SandboxServiceStub(channel)
            ready = Clock()
            with ready.running():
                answer = stub.Create(request, metadata=metadata, timeout=_BOOT_SECONDS)
            series.ready.append(ready.ms)
            series.add_steps({step.name: step.milliseconds for step in answer.steps})
            gone = pb.SandboxDeleteRequest(sandbox_id=request.sandbox.sandbox_id, reason="measured")
            stub.Delete(gone, metadata=metadata)


def _request(template: str) -> pb.SandboxCreateRequest:
    end = Timestamp()
    end.FromSeconds(int(time.time()) + LIFE_SECONDS)
    return pb.SandboxCreateRequest(
        sandbox=pb.SandboxConfig(
            template_id=template,
            sandbox_id=new_sandbox_id(),
            execution_id=new_run_id(),
            envd_access_token=uuid.uuid4().hex,
        ),
        end_time=end,
        filesystem_boot=True,
    )
