"""Writes what the lifecycle decides, and carries out its instructions."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from emberbox.api_server.errors import NodeError
from emberbox.api_server.records import history
from emberbox.api_server.records.history import What
from emberbox.api_server.records.lifecycle import (
    SHOWN_RUNNING,
    EndConfirmed,
    Event,
    Instruction,
    ResumeAsked,
    State,
    Transition,
    handle,
)
from emberbox.shared.ids import new_run_id
from emberbox.shared.joining import JointCalls

if TYPE_CHECKING:
    from datetime import timedelta

    from emberbox.api_server.background import Background
    from emberbox.api_server.catalog import Catalog
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import Nodes
    from emberbox.api_server.store.rows import Sandbox
    from emberbox.api_server.store.sandboxes import SandboxStore

log = structlog.get_logger(__name__)

_ATTEMPTS = 10

_REACHABLE = SHOWN_RUNNING | {State.PAUSING}
"""States in which traffic goes to its host, which knows best."""


class Keeper:
    """The shell around `records.lifecycle`."""

    def __init__(
        self,
        store: SandboxStore,
        nodes: Nodes,
        background: Background,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._background = background
        self._catalog = catalog
        self._clock = clock
        self._ending: JointCalls[str, None] = JointCalls()

    async def apply(self, row: Sandbox, event: Event, *, wait: bool = False) -> Transition:
        """Write what `event` makes of `row`, which may be out of date.

        The instruction to end it on its node is carried out in the background, or awaited with
        `wait`; then NodeError is raised when the node does not confirm.
        """
        current: Sandbox | None = row
        for attempt in range(_ATTEMPTS):
            if current is None:
                return Transition(row.state, row.state)
            transition = handle(current.record, event)
            # The write finds out whether `row` was out of date; where none is due, a look does.
            if await self._write(current, event, transition) if transition.changes else attempt > 0:
                await self._carry_out(_after(current, transition), transition, wait)
                return transition
            current = await self._store.get(row.sandbox_id)
        raise RuntimeError(f"sandbox {row.sandbox_id} changed {_ATTEMPTS} times meanwhile")

    async def settle(self, row: Sandbox, event: Event) -> Transition:
        """Apply now; when the database fails, again in the background until it does not, and
        the answer is what is going to be written."""
        try:
            return await self.apply(row, event)
        except Exception as error:  # noqa: BLE001 - the caller's answer does not wait for it
            log.warning("record not written yet", sandbox_id=row.sandbox_id, error=repr(error))
            self.settle_later(row, event)
            return handle(row.record, event)

    def settle_later(self, row: Sandbox, event: Event) -> None:
        """Apply in the background, retried until written."""

        async def apply() -> None:
            await self.apply(row, event)

        self._background.retry(apply, f"{type(event).__name__} of {row.sandbox_id}")

    async def resume(
        self, row: Sandbox, life: timedelta, *, auto_pause: bool | None = None
    ) -> Sandbox | None:
        """Begin another run of a paused sandbox: its record, or None when `row` is out of date.

        `auto_pause`: what to do at the deadline from now on; None: as before.

        Raises QuotaExceededError and BadRequestError.
        """
        now = self._clock()
        event = ResumeAsked(row.execution_id, new_run_id())
        transition = handle(row.record, event)
        if transition.new_execution_id is None:
            return None
        begun = replace(
            row,
            execution_id=transition.new_execution_id,
            state=transition.after,
            started_at=now,
            end_at=now + life,
            auto_pause=row.auto_pause if auto_pause is None else auto_pause,
        )
        entry = history.entry(begun, What.RESUMING, now)
        if not await self._store.resume(begun, transition, row.execution_id, entry):
            return None
        _tell(begun, event, transition)
        return begun

    def note(self, row: Sandbox, notice: str) -> None:
        """Keep what the node said of a start, for the log and for whoever looks at the sandbox."""
        if notice:
            log.warning("sandbox started otherwise", sandbox_id=row.sandbox_id, notice=notice)
        if notice or row.notice:
            self._background.retry(
                lambda: self._store.note(row, notice), f"notice of {row.sandbox_id}"
            )

    def clean_up(self, row: Sandbox, node: Node) -> None:
        """Have a node remove what is left of a run that went on to another node.

        Tried once: later the sandbox may be there again, and reconciling finds what is not.
        """

        async def remove() -> None:
            with contextlib.suppress(NodeError):
                await node.delete(row.sandbox_id, "it failed here")

        self._background.start(remove(), f"rest of {row.sandbox_id} on {node.name}")

    async def end(self, row: Sandbox) -> None:
        """Delete on the node and record it. Callers at once share one Delete and its result."""
        await self._ending.call(row.execution_id, lambda: self._end(row))

    async def _write(self, row: Sandbox, event: Event, transition: Transition) -> bool:
        now = self._clock()
        entry = history.changed(row, event, transition, now)
        written = await self._store.change(row.sandbox_id, row.execution_id, transition, now, entry)
        if written:
            _tell(row, event, transition)
            if transition.after not in _REACHABLE:
                self._background.start(
                    self._catalog.remove(row), f"catalog entry of {row.sandbox_id}"
                )
        return written

    async def _carry_out(self, row: Sandbox, transition: Transition, wait: bool) -> None:
        if Instruction.END_ON_NODE not in transition.instructions:
            return
        if wait:
            await self.end(row)
        else:
            self._background.retry(lambda: self.end(row), f"end of {row.sandbox_id}")

    async def _end(self, row: Sandbox) -> None:
        node = await self._nodes.get(row.node_id)
        await node.delete(row.sandbox_id, row.end_reason or "asked for by the API server")
        await self.apply(row, EndConfirmed(row.execution_id))


def _after(row: Sandbox, transition: Transition) -> Sandbox:
    reason = row.end_reason if transition.reason is None else transition.reason
    return replace(row, state=transition.after, end_reason=reason)


def _tell(row: Sandbox, event: Event, transition: Transition) -> None:
    log.info(
        "sandbox changed state",
        sandbox_id=row.sandbox_id,
        execution_id=row.execution_id,
        node=row.node_id,
        before=transition.before.value,
        after=transition.after.value,
        because=type(event).__name__,
        reason=transition.reason,
    )
