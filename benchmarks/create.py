"""How long a sandbox takes to be ready, and to have run its first command.

`clone` asks the API as a user does. `cold` boots the kernel: the API has no such option, so the
orchestrator is asked, without the API server's few milliseconds. There is no warm pool yet, so
its figures are null; so are those of a busy host and of other tools.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.figures import Clock, at_least_one, percentiles, progress
from benchmarks.stack import running
from emberbox import Sandbox, SandboxException
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.shared.ids import new_run_id, new_sandbox_id

if TYPE_CHECKING:
    from benchmarks.stack import Target

LIFE_SECONDS = 300


@dataclass(slots=True)
class Series:
    """Creates of one kind: times in milliseconds, and the steps of the last one."""

    ready: list[float] = field(default_factory=list)
    first_command: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        """What is printed of it."""
        return {
            "ready_ms": percentiles(self.ready),
            **({"first_command_ms": percentiles(self.first_command)} if self.first_command else {}),
            **(
                {"steps_ms": {n: percentiles(v) for n, v in self.steps.items()}}
                if self.steps
                else {}
            ),
            "runs": len(self.ready),
        }


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks create")
    parser.add_argument("--cold", type=at_least_one, default=10)
    parser.add_argument("--clone", type=at_least_one, default=30)
    parser.add_argument("--burst", type=at_least_one, default=20)
    options = parser.parse_args(arguments)
    with running() as target:
        Sandbox.create(timeout=60).kill()  # the first reads the RAM image from disk
        host = _Host(target)
        clone = measure_clone(options.clone)
        on_host = host.measure("clone on the host", options.clone, cold=False)
        cold = host.measure("cold", options.cold, cold=True)
        burst = measure_burst(options.burst)
    return {
        "cold": cold.result(),
        "clone": clone.result(),
        "clone_on_host": on_host.result(),
        "burst20": burst,
        "pool": None,
        "pool_back_to_back": None,
        "refill_cpu_ms": None,
        "busy": None,
        "burst100": None,
        "peers": None,
        "runs": {"cold": options.cold, "clone": options.clone, "burst": options.burst},
    }


def measure_clone(count: int) -> Series:
    """Through API and SDK, one after the other."""
    series = Series()
    for number in range(count):
        ready, command = Clock(), Clock()
        with ExitStack() as ended, command.running():
            with ready.running():
                sandbox = ended.enter_context(Sandbox.create(timeout=LIFE_SECONDS))
            sandbox.commands.run("true")
        series.ready.append(ready.ms)
        series.first_command.append(command.ms)
        progress("clone", number + 1, count)
    return series


def measure_burst(count: int) -> dict[str, Any]:
    """All at once, each followed by a command."""

    def one(_number: int) -> Sandbox | None:
        try:
            with ExitStack() as ended:
                sandbox = ended.enter_context(Sandbox.create(timeout=LIFE_SECONDS))
                sandbox.commands.run("true", timeout=120)
                ended.pop_all()  # it ends with the others, after the clock has stopped
        except SandboxException as error:
            print(error, file=sys.stderr)
            return None
        return sandbox

    begun = time.perf_counter()
    with ThreadPoolExecutor(count) as threads:
        made = [sandbox for sandbox in threads.map(one, range(count)) if sandbox]
        wall = time.perf_counter() - begun
        list(threads.map(Sandbox.kill, made))
    progress("burst", len(made), count)
    return {"wall_s": round(wall, 2), "succeeded": len(made), "of": count}


class _Host:
    """The orchestrator, asked directly."""

    def __init__(self, target: Target) -> None:
        self._address = target.orchestrator
        self._metadata = target.metadata

    def measure(self, name: str, count: int, *, cold: bool) -> Series:
        series = Series()
        with grpc.insecure_channel(self._address) as channel:
            stub = pb_grpc.SandboxServiceStub(channel)
            templates = pb_grpc.TemplateServiceStub(channel).List(
                pb.TemplateListRequest(), metadata=self._metadata
            )
            template = templates.templates[0].template_id
            for number in range(count):
                self._one(stub, _request(template, cold=cold), series)
                progress(name, number + 1, count)
        return series

    def _one(
        self, stub: pb_grpc.SandboxServiceStub, request: pb.SandboxCreateRequest, series: Series
    ) -> None:
        ready = Clock()
        with ready.running():
            answer = stub.Create(request, metadata=self._metadata, timeout=180)
        series.ready.append(ready.ms)
        for step in answer.steps:
            series.steps.setdefault(step.name, []).append(step.milliseconds)
        stub.Delete(
            pb.SandboxDeleteRequest(sandbox_id=request.sandbox.sandbox_id, reason="measured"),
            metadata=self._metadata,
        )


def _request(template: str, *, cold: bool) -> pb.SandboxCreateRequest:
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
        filesystem_boot=cold,
    )
