"""What must be so after any fault: records are machines, nothing is left, all is explained."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import grpc

from emberbox import Sandbox, SandboxException, ServiceBusyException
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from emberbox.orchestrator.processes import is_alive
from emberbox.orchestrator.sandboxes.records import RECORD_FILE, SandboxRecord
from tests import leaks
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.stack import Stack

RECOVERY = 90.0
"""Seconds that may pass until all is well: a program restarts, reconciling looks twice."""

REFUSALS = (SandboxException, ServiceBusyException)
"""What calls are refused with. The latter is no kind of the former in e2b."""

_LIVE = ("creating", "running", "pausing", "paused", "resuming", "killing")


def assert_whole(stack: Stack) -> None:
    """The programs serve, and database, orchestrator, processes and files tell the same."""
    wait_until(stack.template_ready, RECOVERY)
    wait_until(lambda: _api_answers(stack), RECOVERY)
    found: list[str] = []

    def agrees() -> bool:
        found[:] = differences(stack)
        return not found

    try:
        wait_until(agrees, RECOVERY)
    except AssertionError:
        raise AssertionError(f"after {RECOVERY} s: {found}") from None


def differences(stack: Stack) -> list[str]:
    """Where the four accounts of what runs contradict one another."""
    records = _records(stack)
    unsettled = {one: state for one, state in records.items() if state not in ("running", "paused")}
    recorded = {one for one, state in records.items() if state == "running"}
    accounts = {
        "the orchestrator": _listed(stack),
        "processes": _vmms(stack),
        "run directories": {path.name for path in stack.home.run_directories.iterdir()},
    }
    found = [f"{one} is still {state}" for one, state in unsettled.items()]
    for name, ids in accounts.items():
        found += [f"{one} runs by its record, and not by {name}" for one in recorded - ids]
        found += [f"{one} runs by {name}, and not by its record" for one in ids - recorded]
    paused = {one for one, state in records.items() if state == "paused"}
    kept = {path.name for path in stack.home.snapshots.glob("[!.]*")}
    found += [f"{one}: paused by one of record and disk alone" for one in paused ^ kept]
    return found + [f"nobody's VMM: {line[:80]}" for line in strays(stack)]


def assert_empty(stack: Stack) -> None:
    """No sandbox, none of its parts."""
    left = leaks.wait_until_none(
        lambda: [
            *_records(stack),
            *(path.name for path in stack.home.run_directories.iterdir()),
            *(path.name for path in stack.home.snapshots.iterdir()),
            *strays(stack),
        ]
    )
    assert not left, left


def assert_ends_are_explained(stack: Stack) -> None:
    """The last line of each ended sandbox's log is an end with a reason."""
    with closing(sqlite3.connect(stack.home.database)) as database:
        unexplained = database.execute(
            "SELECT s.sandbox_id, e.what, e.reason FROM sandboxes s"
            " LEFT JOIN sandbox_events e ON e.number ="
            " (SELECT max(number) FROM sandbox_events WHERE sandbox_id = s.sandbox_id)"
            " WHERE s.ended_at IS NOT NULL AND"
            " (e.what IS NULL OR e.reason = ''"
            "  OR e.what NOT IN ('killed', 'expired', 'crashed', 'failed'))"
        ).fetchall()
    assert unexplained == []


def assert_refusals_are_explained(errors: Iterable[Exception]) -> None:
    """Whatever a client was refused, it was by an error of the SDK that says why."""
    for error in errors:
        assert isinstance(error, REFUSALS), repr(error)
        assert len(str(error)) > 15, repr(error)
        assert "Traceback" not in str(error)


def told(stack: Stack, sandbox_id: str) -> dict[str, str]:
    """The last event of a sandbox, as `emberbox events ID` tells it."""
    lines = stack.emberbox("events", sandbox_id, "--json").splitlines()
    last: dict[str, str] = json.loads(lines[-1])
    return last


def _records(stack: Stack) -> dict[str, str]:
    marks = ", ".join("?" * len(_LIVE))
    with closing(sqlite3.connect(stack.home.database)) as database:
        return dict(
            database.execute(
                f"SELECT sandbox_id, state FROM sandboxes WHERE state IN ({marks})",
                _LIVE,
            ).fetchall()
        )


def _listed(stack: Stack) -> set[str]:
    try:
        with stack.channel() as channel:
            stub = pb_grpc.SandboxServiceStub(channel)
            answer = stub.List(pb.SandboxListRequest(), metadata=stack.secret, timeout=10)
    except grpc.RpcError as error:
        return {f"? {error}"}
    return {one.sandbox_id for one in answer.sandboxes}


def _vmms(stack: Stack) -> set[str]:
    """Sandboxes whose VMM lives, by the process that their record names."""
    return {
        record.sandbox_id
        for record in _run_records(stack.home.run_directories)
        if record.process is not None and is_alive(record.process)
    }


def strays(stack: Stack) -> set[str]:
    """VMMs of this node that no record names, neither of a sandbox nor of a warm clone."""
    places = (stack.home.run_directories, stack.home.pool)
    known = {
        str(record.process.pid)
        for place in places
        for record in _run_records(place)
        if record.process is not None
    }
    prefix = f" emberbox-{stack.network.tag}-"
    lines = {line for line in leaks.Machine.now(stack.home.root).vms if prefix in line}
    return {line for line in lines if line.partition(" ")[0] not in known}


def _run_records(place: Path) -> Iterator[SandboxRecord]:
    for path in place.glob(f"*/{RECORD_FILE}"):
        try:
            yield SandboxRecord.from_json(path.read_bytes())
        except FileNotFoundError:  # it ended meanwhile
            continue


def _api_answers(stack: Stack) -> bool:
    try:
        Sandbox.list(**stack.sdk).next_items()
    except REFUSALS:
        return False
    return True
