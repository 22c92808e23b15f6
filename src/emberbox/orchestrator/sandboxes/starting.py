"""How a sandbox gets its machine: a warm clone, or one that is made now, when it is its turn."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.errors import MachineError, OrchestratorError
from emberbox.orchestrator.sandboxes.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from emberbox.orchestrator.sandboxes.beginning import Beginning, WarmClone
    from emberbox.orchestrator.sandboxes.holdings import Holdings, Host
    from emberbox.orchestrator.sandboxes.lifecycle import Lifecycle
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.sandboxes.starts import Turn
    from emberbox.shared.steps import Steps

_log = structlog.get_logger(__name__)


class Start:
    """One start of one sandbox. What it takes goes into `holdings`, whatever happens."""

    def __init__(self, host: Host, holdings: Holdings, steps: Steps, life: Lifecycle) -> None:
        self.way = ""
        """"pool", "clone", "boot" or "resume"."""
        self._host = host
        self._holdings = holdings
        self._steps = steps
        self._life = life

    def begin(
        self, record: SandboxRecord, beginning: Beginning, group: str
    ) -> Coroutine[None, None, SandboxRecord]:
        """Take a place in the queue; what then starts it, for the caller to run.

        It gives the record of the machine that answers as this sandbox, or raises
        OrchestratorError or OSError. Raises AdmissionRefused when its turn would come too late.
        """
        self.way = _way(beginning)
        starts = self._host.starts
        if beginning.clone is None:
            return self._bring_up(record, beginning, starts.join(group))
        return self._take_over(record, beginning, group, beginning.clone, starts.step_in())

    async def _bring_up(
        self, record: SandboxRecord, beginning: Beginning, turn: Turn
    ) -> SandboxRecord:
        async with contextlib.AsyncExitStack() as start:
            with self._steps.measure("queue"):
                await start.enter_async_context(turn)
            if self._life.state is State.ENDING:
                raise killed_while_starting()
            return await self._holdings.bring_up(record, beginning, self._steps)

    async def _take_over(
        self,
        record: SandboxRecord,
        beginning: Beginning,
        group: str,
        clone: WarmClone,
        stepping_in: contextlib.ExitStack,
    ) -> SandboxRecord:
        with stepping_in:
            try:
                return await self._holdings.take_over(
                    record, clone, beginning.identity, self._steps
                )
            except (OrchestratorError, OSError) as error:
                await self._give_up(record, clone, error)
        self.way = "clone"
        return await self._bring_up(record, beginning, self._host.starts.join(group))

    async def _give_up(self, record: SandboxRecord, clone: WarmClone, error: Exception) -> None:
        """Leave nothing of a warm clone that did not become this sandbox."""
        name = clone.directory.name
        _log.warning("a warm clone failed", clone=name, reason=str(error))
        self._life.note(f"the warm clone {name} was of no use: {error}")
        await self._holdings.give_back()
        await asyncio.to_thread(clone.discard)
        await asyncio.to_thread(self._host.directories.remove, record.sandbox_id)


def killed_while_starting() -> MachineError:
    """What whoever waits for the start hears."""
    return MachineError("the sandbox was killed while it was starting")


def _way(beginning: Beginning) -> str:
    if beginning.clone is not None:
        return "pool"
    if beginning.cold:
        return "boot"
    return "resume" if beginning.snapshot is not None else "clone"
