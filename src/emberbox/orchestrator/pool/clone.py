"""One warm clone: made, watched, handed over or ended."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.network.policy import CLOSED
from emberbox.orchestrator.pool.rehearsal import nobody, rehearse
from emberbox.orchestrator.sandboxes.beginning import Beginning
from emberbox.orchestrator.sandboxes.holdings import Holdings
from emberbox.orchestrator.sandboxes.joint import Joint
from emberbox.orchestrator.sandboxes.records import SandboxRecord
from emberbox.shared.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)


class PoolClone:
    """A clone of a template that is nobody's sandbox. `host` has the pool's own run directories.

    It is told who it is as a sandbox is, with an identity that means nothing, so that all that the
    real one will make it do was done before. It has no route, and its slot is closed.
    """

    def __init__(
        self, host: Host, record: SandboxRecord, on_handed_over: Callable[[PoolClone], object]
    ) -> None:
        self.record = record
        self._on_handed_over = on_handed_over
        self._host = host
        self._holdings = Holdings(host, self._note, ahead=True)
        self._warm: Joint[None] = Joint()
        self.task: asyncio.Task[None] | None = None
        """What is being done with it at the moment."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.record.sandbox_id

    @property
    def directory(self) -> Path:
        """Its run directory."""
        return self._host.directories.path(self.name)

    @property
    def slot_index(self) -> int | None:
        """Its network slot, while it has one."""
        return self._holdings.slot.index if self._holdings.slot else None

    @property
    def has_machine(self) -> bool:
        """Whether it has a VM."""
        return self._holdings.machine is not None

    async def warm(self, template: Template) -> None:
        """Make it and let it rehearse. Raises OrchestratorError or OSError."""
        steps = Steps()
        beginning = Beginning(template, nobody(template.spec.template_id))
        record = await self._holdings.bring_up(self.record, beginning, steps)
        slot, machine = self._holdings.both()
        with steps.measure("rehearsal"):
            await unless_ended(machine, rehearse(slot, template.spec.template_id))
        self.record = dataclasses.replace(record, running=True)
        self._host.directories.save(self.record)
        _log.info("a warm clone is ready", clone=self.name, steps=steps.rounded())
        self._warm.succeed(None)

    def failed(self, error: Exception) -> None:
        """It will not be warm; whoever was promised it hears so."""
        self._warm.fail(error)

    async def adopt(self) -> bool:
        """Take hold of it after a restart of the orchestrator; whether it is still warm."""
        await self._holdings.take_again(self.record)
        warm = self.record.running and self._holdings.machine is not None
        if warm:
            self._warm.succeed(None)
        return warm

    async def died(self) -> str:
        """Return when its VM has ended by itself, with what is known of why."""
        _, machine = self._holdings.both()
        return await machine.wait()

    async def handed_over(self) -> Holdings:
        """What it holds, when it is warm; from now on that is the caller's to give back.

        Raises OrchestratorError or OSError when it failed; then nothing is the caller's.
        """
        if not self._warm.over:
            self._holdings.hurry()
        await self._warm.result()
        await self._stop()
        self._on_handed_over(self)
        return self._holdings

    async def end(self) -> None:
        """Break off what is being done with it; nothing of it is left then."""
        await self._stop()
        self._warm.fail(MachineError("the warm clone was ended"))
        await self._holdings.give_back()
        await asyncio.to_thread(self.discard)

    def discard(self) -> None:
        """Remove what is left of its directory; for threads."""
        self._host.directories.remove(self.name)

    async def _stop(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _note(self, text: str) -> None:
        _log.info("warm clone", clone=self.name, note=text)


def clone_record(name: str, template: Template) -> SandboxRecord:
    """The record of a clone that is to be made: in the place of a sandbox's id it has a name."""
    return SandboxRecord(
        sandbox_id=name,
        execution_id="",
        template_id=template.spec.template_id,
        build_id=template.build_id,
        slot=-1,
        vcpu=template.hardware.vcpu,
        ram_mb=template.hardware.ram_mb,
        disk_mb=template.manifest.disk_mb,
        egress=CLOSED,
        start_time=time.time(),
        end_time=0.0,
    )
