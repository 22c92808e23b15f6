"""`emberbox sandboxes` asks the orchestrator: how each was made, and where the time went."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import pytest
from click.testing import CliRunner

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.cli.commands import emberbox
from emberbox.shared.internal_secret import load_or_create
from emberbox.shared.protocol import GRPC_SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STARTED = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
POOLED = pb.RunningSandbox(
    sandbox_id="ipooled",
    execution_id="e-1",
    template_id="base",
    state="running",
    way="pool",
    steps=[pb.Step(name="claim", milliseconds=1.26), pb.Step(name="init", milliseconds=20)],
    start_time=STARTED,
    end_time=STARTED,
)
ADOPTED = pb.RunningSandbox(
    sandbox_id="iadopted", state="running", start_time=STARTED, end_time=STARTED
)


class Host(pb_grpc.SandboxServiceServicer, pb_grpc.InfoServiceServicer):
    """One with two sandboxes."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def List(  # noqa: N802 - the name in the interface
        self, _request: pb.SandboxListRequest, context: grpc.ServicerContext
    ) -> pb.SandboxListResponse:
        assert (GRPC_SECRET_KEY, self.secret) in context.invocation_metadata()
        return pb.SandboxListResponse(sandboxes=[POOLED, ADOPTED])

    def Get(  # noqa: N802
        self, request: pb.SandboxGetRequest, context: grpc.ServicerContext
    ) -> pb.SandboxGetResponse:
        if request.sandbox_id != "ipooled":
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.sandbox_id} is not on this host")
        return pb.SandboxGetResponse(sandbox=POOLED, story=["made", "ready after 21.3 ms"])

    def ServiceInfo(  # noqa: N802
        self, _request: pb.ServiceInfoRequest, _context: grpc.ServicerContext
    ) -> pb.ServiceInfoResponse:
        return pb.ServiceInfoResponse(pool_ready=3, pool_making=1, pool_wanted=4)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where it listens; the home with its secret is in the environment."""
    monkeypatch.setenv("EMBERBOX_HOME", str(tmp_path))
    host = Host(load_or_create(tmp_path / "internal_secret"))
    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_SandboxServiceServicer_to_server(host, server)
    pb_grpc.add_InfoServiceServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(emberbox, ["sandboxes", *arguments])
    assert done.exit_code == status, done.output
    return done.output


def test_a_table_for_people(address: str) -> None:
    heads, pooled, adopted, last = run("--orchestrator", address).splitlines()
    assert heads.split("  ")[0] == "ID"
    assert pooled.split()[:4] == ["ipooled", "running", "pool", "21.3"]
    assert pooled.endswith("2026-11-27 12:00:00  2026-11-27 12:00:00  claim 1.3, init 20.0")
    assert adopted.split()[:4] == ["iadopted", "running", "-", "-"]
    assert last == "2 sandboxes; warm clones: 3 ready, 1 being made, 4 wanted"


def test_json_for_programs(address: str) -> None:
    told = json.loads(run("--orchestrator", address, "--json"))
    assert told["warm_clones"] == {"ready": 3, "making": 1, "wanted": 4}
    first = told["sandboxes"][0]
    assert (first["sandbox_id"], first["made_by"], first["ready_ms"]) == ("ipooled", "pool", 21.3)
    assert first["steps_ms"] == {"claim": 1.3, "init": 20.0}
    assert first["started_at"] == "2026-11-27T12:00:00+00:00"


def test_the_story_of_one(address: str) -> None:
    assert run("ipooled", "--orchestrator", address) == "made\nready after 21.3 ms\n"
    assert json.loads(run("ipooled", "--orchestrator", address, "--json"))[0] == "made"
    assert "inone is not on this host" in run("inone", "--orchestrator", address, status=1)


def test_nobody_there(address: str, free_port: int) -> None:
    told = run("--orchestrator", f"127.0.0.1:{free_port}", status=1)
    assert "is `emberbox up` running?" in told
