"""Pausing and copying a running sandbox, for all who want it at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from emberbox.orchestrator.errors import OrchestratorError, SandboxMissing
from emberbox.orchestrator.sandboxes.copying import Copying
from emberbox.orchestrator.sandboxes.joint import Joint
from emberbox.orchestrator.sandboxes.lifecycle import (
    CheckpointRequested,
    Copied,
    PauseFailed,
    Saved,
    State,
    Suspend,
)
from emberbox.orchestrator.sandboxes.suspending import Suspension

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from emberbox.orchestrator.machines.driver import Machine
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.sandboxes.copying import Draft, Wanted
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.lifecycle import Event, PauseRequested
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.snapshots.manifest import Snapshot

_log = structlog.get_logger(__name__)

_PAUSE_AGAIN = 10.0
"""Seconds after which a pause at the deadline is tried again that failed, as on a full disk."""


class Run(Protocol):
    """The sandbox whose memory is saved.

    unrouted: set when no traffic reaches it any more
    ended:    set when nothing of it is left
    """

    record: SandboxRecord
    unrouted: asyncio.Event
    ended: asyncio.Event

    @property
    def state(self) -> State:
        """Where it is in its life."""

    @property
    def is_paused(self) -> bool:
        """Whether its snapshot is what is left of it, or soon will be."""

    def feed(self, event: Event) -> None:
        """Take an event, and do what follows from it."""

    def note(self, text: str) -> None:
        """Write into its story."""

    def held(self) -> tuple[Slot, Machine]:
        """What it runs on. Raises MachineError when it has nothing."""

    def rearm(self, at_least: float) -> None:
        """Look at its deadline again, `at_least` seconds from now."""


@dataclass(frozen=True, slots=True)
class Paused:
    """What a pause has made, and how long its steps took, in milliseconds."""

    snapshot: Snapshot
    steps: list[tuple[str, float]]


class Saving:
    """Pauses and copies of one run, one after the other."""

    def __init__(self, host: Host, run: Run) -> None:
        self._host = host
        self._run = run
        self._one_at_a_time = asyncio.Lock()
        self._paused: Joint[Paused] | None = None
        self._copy: tuple[Wanted, Joint[Draft]] | None = None

    @property
    def is_pausing(self) -> bool:
        """Whether it is being paused, or is and not all is given back."""
        return self._paused is not None and not self._run.ended.is_set()

    async def unpaused(self) -> None:
        """Return when it is not being paused: it runs, or nothing of it is left."""
        if self._paused is not None:
            await self._paused.wait()
        if self.is_pausing:
            await self._run.ended.wait()

    async def pause(self, wanted: PauseRequested) -> Paused:
        """Write it to disk and return when its snapshot is durable and no traffic reaches it.

        Its machine and slot are given back after that. A second caller joins the first. Raises
        SandboxMissing when it ends otherwise; else what writing failed with, and it runs on.
        """
        async with self._one_at_a_time:
            self._run.feed(wanted)
        if self._paused is None:
            raise SandboxMissing(f"sandbox {self._run.record.sandbox_id} has ended")
        return await self._paused.result()

    async def checkpoint(self, wanted: Wanted) -> Draft:
        """Copy it while it stands still; it runs on. One copy after the other.

        Raises SandboxMissing when it does not run, else what copying failed with.
        """
        async with self._one_at_a_time:
            state = self._run.state
            if state is not State.RUNNING:
                raise SandboxMissing(f"sandbox {self._run.record.sandbox_id} is {state.value}")
            copied: Joint[Draft] = Joint()
            self._copy = wanted, copied
            self._run.feed(CheckpointRequested())
            return await copied.result()

    # What the lifecycle has decided

    def suspend(self, wanted: Suspend) -> Coroutine[None, None, None]:
        """Write it to disk; how that went is fed back and told to all who wait for a pause, from
        this call on."""
        self._paused = Joint()
        return self._suspend(wanted, self._paused)

    async def _suspend(self, wanted: Suspend, paused: Joint[Paused]) -> None:
        try:
            done = await self._save(wanted)
        except Exception as error:  # noqa: BLE001 - told to whoever asked; it runs on
            await self._failed(paused, error)
        else:
            self._run.feed(Saved())
            await self._run.unrouted.wait()
            if self._run.is_paused:
                paused.succeed(done)
            else:
                await self._run.ended.wait()
                paused.fail(_killed_while_pausing())

    async def copy(self) -> None:
        """Make the copy that was asked for."""
        if self._copy is None:
            return
        wanted, copied = self._copy
        try:
            run = self._run
            slot, machine = run.held()
            draft = await Copying(self._host, run.record, machine, slot, run.note).run(wanted)
        except Exception as error:  # noqa: BLE001 - told to whoever asked; it runs on
            _log.warning("copy failed", sandbox_id=self._run.record.sandbox_id, reason=str(error))
            self._run.feed(Copied())
            copied.fail(error)
        else:
            self._run.feed(Copied())
            copied.succeed(draft)

    async def save_again(self) -> None:
        """Write a machine to disk whose resume failed when it had run already: its memory need
        not be lost. Raises nothing of ours."""
        try:
            await self._save(Suspend(files_only=False))
        except (OrchestratorError, OSError) as error:
            self._run.note(f"its memory could not be saved again: {error}")

    async def _save(self, wanted: Suspend) -> Paused:
        run = self._run
        slot, machine = run.held()
        attempt = Suspension(self._host, run.record, machine, slot, run.note)
        return Paused(await attempt.run(wanted), attempt.steps.taken)

    async def _failed(self, paused: Joint[Paused], error: Exception) -> None:
        run = self._run
        _log.warning("pause failed", sandbox_id=run.record.sandbox_id, reason=str(error))
        run.feed(PauseFailed(str(error)))
        if run.state is State.RUNNING:
            run.rearm(_PAUSE_AGAIN if run.record.auto_pause else 0.0)
            self._paused = None
            paused.fail(error)
        else:
            await run.ended.wait()
            paused.fail(_killed_while_pausing())


def _killed_while_pausing() -> SandboxMissing:
    return SandboxMissing("the sandbox ended while it was being paused")
