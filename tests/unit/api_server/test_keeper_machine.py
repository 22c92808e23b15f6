"""An API server and its host, with clients that want everything at once and a host that fails.

Rules are calls over REST, and what a host does by itself or refuses. At the end the reconciler
looks until nothing changes: then the records are what the host has, the quota counts them, and
the log explains every end. EMBERBOX_FUZZ_EXAMPLES says how many lives are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as pb
from emberbox.api_server.records.history import ENDS
from emberbox.api_server.records.lifecycle import COUNTED, LIVE, State

from .harness import running, settings_for
from .standin import Standin

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    import httpx

    from .harness import World

EXAMPLES = int(os.environ.get("EMBERBOX_FUZZ_EXAMPLES", "8"))

SETTLED_WITHIN = 10.0
"""Seconds."""

pytestmark = pytest.mark.timeout(120 + 10 * EXAMPLES)

_CALLS = ("pause", "connect", "timeout", "kill", "snapshots")
_EXPLAINED = {404, 409, 429, 500, 503}
_FAILURES = (
    None,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "no memory left"),
    (grpc.StatusCode.INTERNAL, "the guest ended"),
    (grpc.StatusCode.UNAVAILABLE, "connection lost"),
)


class Control(RuleBasedStateMachine):
    """One world for each example."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self.host = Standin()
        self.ids: list[str] = []
        self.world: World = self.do(self._open())

    async def _open(self) -> World:
        await self.host.start()
        settings = settings_for(Path(self._place.name), self.host)
        self._running = running(settings, self.host)
        world = await self._running.__aenter__()
        await world.limit(concurrent_sandboxes=3)
        comparison = world.services.reconciler._comparison(self.host.node_id)
        comparison.lost_grace = comparison.orphan_grace = timedelta(0)
        comparison.create_timeout = comparison.pause_timeout = timedelta(0)
        return world

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    # Clients

    @rule(auto_pause=st.booleans())
    def create(self, auto_pause: bool) -> None:
        answer = self.do(self.world.create(autoPause=auto_pause))
        if answer.status_code == 201:
            self.ids.append(answer.json()["sandboxID"])
        else:
            self.explained(answer)

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), what=st.lists(st.sampled_from(_CALLS), min_size=1, max_size=3))
    def use(self, data: st.DataObject, what: list[str]) -> None:
        """Several at once of the same sandbox."""
        one = data.draw(st.sampled_from(self.ids))
        for answer in self.do(self._together(one, what)):
            if answer.status_code >= 400:
                self.explained(answer)

    async def _together(self, sandbox_id: str, what: list[str]) -> list[httpx.Response]:
        return await asyncio.gather(*(self._call(sandbox_id, one) for one in what))

    async def _call(self, sandbox_id: str, what: str) -> httpx.Response:
        http, path = self.world.http, f"/sandboxes/{sandbox_id}"
        if what == "kill":
            return await http.delete(path)
        body = {"timeout": 60} if what in ("timeout", "connect") else {}
        return await http.post(f"{path}/{what}", json=body)

    # The host

    @rule(create=st.sampled_from(_FAILURES), pause=st.sampled_from(_FAILURES))
    def the_host_fails_from_now_on(self, create: Any, pause: Any) -> None:
        self.host.fail_create, self.host.fail_pause = create, pause

    @rule()
    def the_host_is_well_again(self) -> None:
        self.host.fail_create = self.host.fail_pause = None

    @precondition(lambda self: self.host.sandboxes)
    @rule(
        data=st.data(),
        outcome=st.sampled_from([pb.OUTCOME_EXPIRED, pb.OUTCOME_CRASHED, pb.OUTCOME_PAUSED]),
    )
    def one_ends_by_itself(self, data: st.DataObject, outcome: pb.Outcome) -> None:
        one = data.draw(st.sampled_from(sorted(self.host.sandboxes)))
        self.do(self.host.report(one, outcome, "because"))

    @precondition(lambda self: self.host.sandboxes)
    @rule()
    def one_is_lost(self) -> None:
        self.host.sandboxes.popitem()

    @rule()
    def the_host_restarts(self) -> None:
        async def restart() -> None:
            await self.host.stop()
            await self.host.start()

        self.do(restart())

    # The server by itself

    @rule()
    def it_reads_the_outbox(self) -> None:
        self.do(self._read_outbox())

    @rule()
    def it_compares(self) -> None:
        self.do(self._compare())

    async def _read_outbox(self) -> None:
        for event in self.host.outbox[self.host.acknowledged :]:
            await self.world.services.reconciler._apply(event)
            self.host.acknowledged = event.number

    async def _compare(self) -> None:
        (node,) = self.world.services.nodes.all()
        await node.connected()
        await self.world.services.reconciler.check(node)

    # What must be so

    def explained(self, answer: httpx.Response) -> None:
        assert answer.status_code in _EXPLAINED, answer.text
        assert len(answer.json()["message"]) > 15
        assert "log has the reason" not in answer.text, answer.text

    def teardown(self) -> None:
        try:
            self.do(self._settle())
        finally:
            self.do(self._running.__aexit__(None, None, None))
            self.do(self.host.stop())
            self._runner.close()
            self._place.cleanup()

    async def _settle(self) -> None:
        """Until records and host agree: kills that were asked for end in the background."""
        self.host.fail_create = self.host.fail_pause = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN):
                while not await self._agree():
                    pass
        rows = await self.world.rows()
        states = {row.sandbox_id: row.state for row in rows}
        assert self._agree_on(states), (states, self.host.sandboxes, self.host.paused)
        assert sum(row.state in COUNTED for row in rows) <= 3
        await self._assert_explained(states)

    async def _agree(self) -> bool:
        await self._read_outbox()
        await self._compare()
        return self._agree_on({row.sandbox_id: row.state for row in await self.world.rows()})

    def _agree_on(self, states: dict[str, State]) -> bool:
        there = dict.fromkeys(self.host.sandboxes, State.RUNNING)
        return states == there | dict.fromkeys(self.host.paused, State.PAUSED)

    async def _assert_explained(self, live: dict[str, State]) -> None:
        entries = await self.world.store.events.page(limit=10_000, oldest_first=True)
        last = {entry.sandbox_id: entry for entry in entries}
        for sandbox_id, entry in last.items():
            row = await self.world.row(sandbox_id)
            assert (entry.what in ENDS) == (row.state not in LIVE), (entry, row.state)
            assert entry.what not in ENDS or entry.reason, entry
        assert set(live) <= set(last)


Control.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestControl = Control.TestCase
