"""The warm pool of a host: the shell that carries out what its lifecycle decides."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.errors import OrchestratorError
from emberbox.orchestrator.pool.clone import PoolClone, clone_record
from emberbox.orchestrator.pool.lifecycle import (
    Adopted,
    Asked,
    Began,
    Closed,
    Died,
    End,
    Ended,
    Event,
    Give,
    Instruction,
    Looked,
    Offered,
    State,
    Stock,
    Warm,
    Warmed,
    WarmingFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from emberbox.orchestrator.pool.demand import Sizes
    from emberbox.orchestrator.processes import ProcessIdentity
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """Clones that are ready, on their way, and wanted."""

    ready: int
    making: int
    wanted: int


class WarmPool:
    """Keeps clones of the offered templates ready and gives them away.

    host:      as sandboxes have it, with the pool's own run directories
    templates: those of which there shall be clones
    """

    def __init__(self, host: Host, sizes: Sizes, templates: Callable[[], list[Template]]) -> None:
        self._host = host
        self._templates = templates
        self._stock = Stock(sizes, time.monotonic, _new_name)
        self._clones: dict[str, PoolClone] = {}
        self._due = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def counts(self) -> PoolCounts:
        """As they are now."""
        making = self._stock.count(State.WAITING, State.WARMING)
        return PoolCounts(self._stock.count(State.READY), making, self._stock.wanted)

    @property
    def processes(self) -> set[ProcessIdentity | None]:
        """The VMMs that the records of an earlier orchestrator name."""
        return {record.process for record in self._host.directories.load_all()}

    def records(self) -> list[SandboxRecord]:
        """Of all clones that are not wholly gone, nor a sandbox's."""
        return [clone.record for clone in self._clones.values()]

    @property
    def machines(self) -> int:
        """How many clones have a VM, and so memory of the host."""
        return sum(clone.has_machine for clone in self._clones.values())

    async def adopt(self) -> set[int]:
        """Take hold of the warm clones of an earlier orchestrator and end what else it left.

        Returns the slots in use.
        """
        records = self._host.directories.load_all()
        await asyncio.gather(*(self._adopt(self._new_clone(record)) for record in records))
        slots = {clone.slot_index for clone in self._clones.values()}
        return {slot for slot in slots if slot is not None}

    def start(self, room: Callable[[], int]) -> None:
        """Begin to keep it filled, with as many clones as `room` says that memory still holds."""
        self._looking = asyncio.create_task(self._look_again(room))

    def look(self) -> None:
        """Look at once whether there are too few or too many."""
        self._due.set()

    def take(self, build_id: str) -> PoolClone | None:
        """A clone of a build for a sandbox, warm or nearly so; None when there is none."""
        instructions = self._stock.handle(Asked(build_id))
        given = [self._clones[one.clone] for one in instructions if isinstance(one, Give)]
        self._carry_out(instructions)
        return given[0] if given else None

    async def close(self) -> None:
        """End all clones: without an orchestrator they are of no use to anybody."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._feed(Closed())
        for clone in list(self._clones.values()):
            if clone.name not in self._stock.clones:  # given to a sandbox that did not take it
                self._spawn(self._end(clone))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_again(self, room: Callable[[], int]) -> None:
        offered: frozenset[str] = frozenset()
        while True:
            self._feed(Looked(room()))
            now = frozenset(self._offered())
            # None are offered while the first is being made; then those of before may still fit.
            if now and now != offered:
                offered = now
                self._feed(Offered(offered))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), _LOOK_SECONDS)
            self._due.clear()

    async def _adopt(self, clone: PoolClone) -> None:
        if await clone.adopt():
            self._feed(Adopted(clone.name, clone.record.build_id))
            clone.task = asyncio.create_task(self._watch(clone))
        else:
            await self._end(clone)

    async def _make(self, clone: PoolClone, template: Template) -> None:
        try:
            await self._host.starts.idle()
            self._feed(Began(clone.name))
            await clone.warm(template)
        except Exception as error:  # noqa: BLE001 - told to whoever was promised it
            expected = isinstance(error, OrchestratorError | OSError)
            _log.warning(
                "a warm clone failed",
                clone=clone.name,
                exc_info=None if expected else error,
                reason=str(error),
            )
            clone.failed(error)
            self._feed(WarmingFailed(clone.name, str(error)))
            return
        self._feed(Warmed(clone.name))
        await self._watch(clone)

    async def _watch(self, clone: PoolClone) -> None:
        self._feed(Died(clone.name, await clone.died()))

    async def _end(self, clone: PoolClone) -> None:
        try:
            await clone.end()
        except OSError as error:
            _log.error("a warm clone's directory stays", clone=clone.name, reason=str(error))
        self._clones.pop(clone.name, None)
        if clone.name in self._stock.clones:
            self._feed(Ended(clone.name))

    def _feed(self, event: Event) -> None:
        self._carry_out(self._stock.handle(event))

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Warm(name, build):
                    template = self._offered()[build]
                    clone = self._new_clone(clone_record(name, template))
                    clone.task = asyncio.create_task(self._make(clone, template))
                case End(name, reason):
                    _log.info("a warm clone ends", clone=name, reason=reason)
                    self._spawn(self._end(self._clones[name]))
                case Give():
                    pass  # `take` has seen to it

    def _offered(self) -> dict[str, Template]:
        return {template.build_id: template for template in self._templates()}

    def _new_clone(self, record: SandboxRecord) -> PoolClone:
        clone = PoolClone(self._host, record, self._handed_over)
        self._clones[clone.name] = clone
        return clone

    def _handed_over(self, clone: PoolClone) -> None:
        self._clones.pop(clone.name, None)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a warm clone could not be ended", exc_info=error)


def _new_name() -> str:
    # No sandbox is called so: their ids have no dash.
    return f"pool-{secrets.token_hex(4)}"
