"""`emberbox nodes` and `emberbox node` on a real database file."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from emberbox.api_server.store import NodeRecord, Store
from emberbox.cli.nodes import node, nodes
from emberbox.cli.team import team
from emberbox.shared.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import click

    Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; what it prints."""
    monkeypatch.setenv("EMBERBOX_HOME", str(tmp_path))
    for name in ("EMBERBOX_DATABASE_URL", "EMBERBOX_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def call(command: click.Command, *arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(command, arguments)
        assert (result.exit_code != 0) == fails, result.output
        return result.stderr if fails else result.stdout

    return call


@pytest.fixture
def host(tmp_path: Path) -> NodeRecord:
    """One that was heard a moment ago, and one an hour ago."""
    now = datetime.now(UTC)

    def record(node_id: str, seen_at: datetime) -> NodeRecord:
        return NodeRecord(
            node_id=node_id,
            address=f"{node_id}:8080",
            data_address=f"{node_id}:5007",
            labels={"zone": "a"},
            version="1",
            driver="qemu",
            accelerator="tcg",
            cpu_model="EPYC",
            cpu_count=8,
            cpu_used=1.25,
            memory_total_mb=16_384,
            memory_available_mb=8_192,
            disk_available_mb=1_000,
            max_sandboxes=200,
            max_ram_mb=65_536,
            shared_directory="",
            ready=True,
            status="ready",
            registered_at=now,
            seen_at=seen_at,
        )

    async def put() -> None:
        store = await Store.open(f"sqlite+aiosqlite:///{Home(tmp_path).database}")
        await store.nodes.put(record("here", now))
        await store.nodes.put(record("gone", now - timedelta(hours=1)))
        await store.close()

    asyncio.run(put())
    return record("here", now)


def states(run: Run) -> dict[str, str]:
    return {one["node_id"]: one["state"] for one in json.loads(run(nodes, "--json"))}


def test_the_list(run: Run, host: NodeRecord) -> None:
    assert states(run) == {"here": "ready", "gone": "unreachable"}
    line = next(line for line in run(nodes).splitlines() if line.startswith(host.node_id))
    for part in ("ready", "0/200", "0/65536 MiB", "1.2/8 EPYC", "qemu/tcg", "zone=a", "here:8080"):
        assert part in line


def test_draining(run: Run, host: NodeRecord) -> None:
    run(node, "drain", host.node_id)
    assert states(run)["here"] == "draining"
    run(node, "undrain", host.node_id)
    assert states(run)["here"] == "ready"
    assert "no node 'other'" in run(node, "drain", "other", fails=True)


def test_forgetting(run: Run, host: NodeRecord) -> None:
    assert "was heard" in run(node, "forget", host.node_id, fails=True)
    assert run(node, "forget", "gone") == "forgotten with 0 sandboxes\n"
    assert run(node, "forget", host.node_id, "--force") == "forgotten with 0 sandboxes\n"
    assert states(run) == {}
    assert "no node 'gone'" in run(node, "forget", "gone", fails=True)


def test_labels_of_a_team(run: Run) -> None:
    run(team, "create", "blue")
    run(team, "labels", "blue", "zone=a,disk=nvme")
    (blue,) = json.loads(run(team, "list", "--json"))
    assert blue["node_labels"] == {"zone": "a", "disk": "nvme"}
    run(team, "labels", "blue")
    assert "'zone'" in run(team, "labels", "blue", "zone", fails=True)
