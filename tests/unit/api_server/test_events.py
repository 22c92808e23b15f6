"""The event log: who did what to a sandbox, when, and why; above all why it ended."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import grpc
import pytest
from click.testing import CliRunner

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.forgetting import forget_node
from emberbox.api_server.records.history import What
from emberbox.api_server.store.events import _MOST_UPDATES
from emberbox.cli.events import events
from emberbox.shared.ids import new_sandbox_id

from . import harness
from .harness import World, client, eventually, paused
from .standin import template
from .test_reconcile import check, patient

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.api_server.records.history import Entry

__all__ = ["patient"]  # a fixture


class Printed(Protocol):
    """Runs `emberbox events`."""

    def __call__(self, *arguments: str) -> list[str]:
        """The lines that it prints."""


CONSOLE = "\nconsole:\n[ 12.3] Out of memory: Killed process 77\n[ 12.4] Kernel panic\x1b[31m"


@pytest.fixture
def printed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Printed:
    """What `emberbox events ID` prints, line by line."""
    monkeypatch.setenv("EMBERBOX_HOME", str(tmp_path))
    monkeypatch.setenv("EMBERBOX_DATABASE_URL", harness.databases_in_use.url(tmp_path))

    def run(*arguments: str) -> list[str]:
        # It makes a loop of its own, so it needs a thread of its own.
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(CliRunner().invoke, events, arguments).result()
        assert done.exit_code == 0, done.output
        lines: list[str] = done.output.splitlines()
        return lines

    return run


async def told(world: World, sandbox_id: str) -> list[Entry]:
    """The log of a sandbox, oldest first."""
    return await world.store.events.page(sandbox_id=sandbox_id, limit=1000, oldest_first=True)


async def reported(world: World, outcome: pb.Outcome, reason: str, **body: object) -> str:
    """A sandbox of which its host has reported an end by itself."""
    sandbox_id = await world.created(**body)
    row = await world.becomes(sandbox_id, "running")
    await world.services.reconciler._apply(
        pb.SandboxEvent(
            sandbox_id=sandbox_id,
            execution_id=row.execution_id,
            outcome=outcome,
            reason=reason,
            at=row.end_at,
        )
    )
    return sandbox_id


async def test_a_life_is_told_with_who_wanted_what(world: World, printed: Printed) -> None:
    sandbox_id = await paused(world)
    await world.http.post(f"/sandboxes/{sandbox_id}/connect", json={"timeout": 60})
    await world.becomes(sandbox_id, "running")
    await world.http.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": 90})
    snapshot = await world.http.post(f"/sandboxes/{sandbox_id}/snapshots", json={})
    assert snapshot.status_code == 201
    await world.http.delete(f"/sandboxes/{sandbox_id}")
    entries = await told(world, sandbox_id)
    assert [entry.what for entry in entries] == [
        What.CREATED, What.STARTED, What.PAUSING, What.PAUSED, What.RESUMING, What.RESUMED,
        What.UPDATED, What.CHECKPOINTED, What.KILLING, What.KILLED,
    ]  # fmt: skip
    (key,) = await world.store.keys.list()
    assert {entry.actor for entry in entries} == {f"key:{key.key_id}"}
    assert all(entry.request_id for entry in entries)
    lines = printed(sandbox_id)
    assert len(lines) == len(entries)
    assert re.search(r"  created +by API key \S+ \('made at a start'\) \(vcpu 2, ram_mb", lines[0])
    assert re.search(r"  killed +by API key .*: killed by request of API key", lines[-1])


async def test_a_kill_that_its_host_confirms_hours_later_names_who_asked(world: World) -> None:
    sandbox_id = await world.created()
    row = await world.becomes(sandbox_id, "running")
    await world.host.stop()
    assert (await world.http.delete(f"/sandboxes/{sandbox_id}")).status_code == 503
    await world.host.start()
    await world.services.reconciler._apply(
        pb.SandboxEvent(
            sandbox_id=sandbox_id,
            execution_id=row.execution_id,
            outcome=pb.OUTCOME_KILLED,
            reason="asked",
        )
    )
    end = (await told(world, sandbox_id))[-1]
    assert end.what is What.KILLED
    assert end.actor.startswith("key:")
    assert end.reason.startswith("killed by request of API key ")


@pytest.mark.parametrize(
    ("outcome", "reason", "line"),
    [
        (
            pb.OUTCOME_EXPIRED,
            "its deadline passed",
            r"expired +by deadline: its deadline passed",
        ),
        (
            pb.OUTCOME_KILLED,
            "the host was shut down",
            r"killed +by host node-1: the host was shut down",
        ),
        (
            pb.OUTCOME_CRASHED,
            "its VMM ended: killed by SIGKILL",
            r"crashed +by host node-1: its VMM ended: killed by SIGKILL",
        ),
    ],
)
async def test_an_end_that_its_host_reports_is_told(
    world: World, printed: Printed, outcome: pb.Outcome, reason: str, line: str
) -> None:
    sandbox_id = await reported(world, outcome, reason)
    assert re.search(line, printed(sandbox_id)[-1])


async def test_of_a_crash_the_last_lines_of_the_console_are_told(
    world: World, printed: Printed
) -> None:
    reason = f"the guest ended: it rebooted: kernel panic: no init{CONSOLE}"
    sandbox_id = await reported(world, pb.OUTCOME_CRASHED, reason)
    *_, end, head, first, last = printed(sandbox_id)
    assert "crashed" in end
    assert "kernel panic: no init" in end
    assert [head, first] == ["    console:", "    [ 12.3] Out of memory: Killed process 77"]
    assert last == "    [ 12.4] Kernel panic\N{REPLACEMENT CHARACTER}[31m"  # steers no terminal


async def test_a_console_of_any_length_is_bounded(world: World) -> None:
    sandbox_id = await reported(world, pb.OUTCOME_CRASHED, "it crashed\nconsole:\n" + "x" * 70_000)
    end = (await told(world, sandbox_id))[-1]
    assert end.reason.startswith("it crashed\nconsole:\n")
    assert len(end.reason) < 5000


async def test_a_deadline_that_pauses_is_told(world: World, printed: Printed) -> None:
    reason = "its deadline passed"
    sandbox_id = await reported(world, pb.OUTCOME_PAUSED, reason, autoPause=True)
    assert re.search(r"paused +by deadline: its deadline passed", printed(sandbox_id)[-1])


async def test_one_that_is_lost_with_its_host_is_told(patient: World, printed: Printed) -> None:
    sandbox_id = await patient.created()
    await patient.becomes(sandbox_id, "running")
    patient.host.sandboxes.clear()
    await check(patient)
    await check(patient)
    assert re.search(r"crashed +by api-server: lost: node-1 does not have it", printed()[-1])
    assert (await told(patient, sandbox_id))[-1].data["because"] == "Lost"


@pytest.mark.parametrize(("auto_pause", "what"), [(False, What.EXPIRED), (True, What.PAUSED)])
async def test_a_deadline_that_passed_on_a_silent_host_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, auto_pause: bool, what: What
) -> None:
    sandbox_id = await world.created(autoPause=auto_pause)
    row = await world.becomes(sandbox_id, "running")
    reconciler = world.services.reconciler
    monkeypatch.setattr(reconciler, "_clock", lambda: row.end_at + timedelta(days=1))
    monkeypatch.setattr(world.services.nodes, "silent_since", lambda _node_id: row.end_at)
    await reconciler._release()
    end = (await told(world, sandbox_id))[-1]
    assert (end.what, end.actor) == (what, "deadline")
    assert end.reason == "its deadline passed while its host node-1 was unreachable"


async def test_a_forgotten_host_is_told(world: World, printed: Printed) -> None:
    sandbox_id = await world.created()
    row = await world.becomes(sandbox_id, "running")
    await forget_node(world.store, row.node_id, world.now())
    assert re.search(
        r"crashed +by operator: its host node-1 was forgotten", printed(sandbox_id)[-1]
    )


async def test_another_network_is_told(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    body = {"denyOut": ["192.0.2.1"]}
    assert (await world.http.put(f"/sandboxes/{sandbox_id}/network", json=body)).is_success
    last = (await told(world, sandbox_id))[-1]
    assert (last.what, last.data) == (What.UPDATED, {"changed": "network"})


async def test_a_start_that_no_host_would_take_is_told(world: World, printed: Printed) -> None:
    world.host.capacity = 0
    assert (await world.create()).status_code == 503
    first, last = printed()
    assert "created" in first
    assert re.search(r"failed +by API key .*: Failed to place sandbox: node-1: no memory", last)


async def test_a_start_that_failed_in_the_guest_is_told(world: World) -> None:
    world.host.fail_create = (grpc.StatusCode.INTERNAL, f"the guest ended{CONSOLE}")
    assert (await world.create()).status_code == 500

    async def ended() -> bool:
        newest = await world.store.events.page(limit=1)
        return newest[0].what is What.KILLED

    await eventually(ended)
    (end,) = await world.store.events.page(limit=1)
    assert end.reason == "the guest ended"
    assert end.actor.startswith("key:")


async def test_a_build_that_was_superseded_meanwhile_is_told(world: World) -> None:
    await world.created()
    newer = "0d9e1a52-0000-4000-8000-000000000001"
    world.host.templates[:] = [template(["base"], world.host.templates[0].template_id, newer)]
    await world.created()
    entries = await world.store.events.page(limit=10, what=[What.FAILED])
    assert [entry.reason for entry in entries] == [
        "its template was built anew meanwhile: no such template here"
    ]


async def test_moved_deadlines_do_not_fill_the_log(world: World) -> None:
    sandbox_id = await world.created()
    await world.becomes(sandbox_id, "running")
    row = await world.row(sandbox_id)
    living = world.services.living
    team = (await world.store.teams.list())[0]
    for _ in range(_MOST_UPDATES + 20):
        await living.set_timeout(team, sandbox_id, 400)
    entries = await told(world, sandbox_id)
    assert [entry.what for entry in entries[:2]] == [What.CREATED, What.STARTED]
    assert len(entries) == 2 + _MOST_UPDATES
    assert str(entries[-1].data["end_at"]) > row.end_at.isoformat()


async def test_the_log_is_kept_as_long_as_the_record(world: World) -> None:
    live, over = await world.created(), await reported(world, pb.OUTCOME_EXPIRED, "late")
    later = world.now() + timedelta(days=31)
    await world.store.sandboxes.forget_ended(later)
    assert await world.store.events.forget(later) == 3
    assert await told(world, over) == []
    assert await told(world, live) != []


async def test_the_log_is_read_in_e2bs_form(world: World) -> None:
    sandbox_id = await reported(world, pb.OUTCOME_EXPIRED, "its deadline passed")
    answer = await world.http.get(f"/events/sandboxes/{sandbox_id}", params={"orderAsc": "true"})
    first, last = answer.json()
    assert first["type"] == "sandbox.lifecycle.created"
    assert last["type"] == "sandbox.lifecycle.killed"
    assert last["sandboxId"] == sandbox_id
    about = last["eventData"]
    assert (about["event"], about["actor"]) == ("expired", "deadline")
    assert about["reason"] == "its deadline passed"
    assert datetime.fromisoformat(last["timestamp"]).tzinfo is not None
    newest = await world.http.get("/events/sandboxes", params={"limit": 1})
    assert newest.json() == [last]
    second = await world.http.get("/events/sandboxes", params={"limit": 1, "offset": 1})
    assert second.json() == [first]


async def test_another_teams_log_is_unknown(world: World) -> None:
    sandbox_id = await world.created()
    async with await world.other_team() as other:
        answer = await other.get(f"/events/sandboxes/{sandbox_id}")
        assert answer.status_code == 404
        assert (await other.get("/events/sandboxes")).json() == []
    assert (await world.http.get(f"/events/sandboxes/{new_sandbox_id()}")).status_code == 404
    async with client(world.url, "e2b_" + "00" * 20) as nobody:
        assert (await nobody.get("/events/sandboxes")).status_code == 401


def test_an_unknown_sandbox_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERBOX_HOME", str(tmp_path))
    done = CliRunner().invoke(events, ["inobody"])
    assert done.exit_code == 1
    assert "nothing is known of a sandbox 'inobody'" in done.output
