"""All sandboxes of this host: what the gRPC service calls."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.errors import RunConflict, SandboxMissing
from emberbox.orchestrator.processes import identify, send_signal
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.lifecycle import Outcome, State
from emberbox.orchestrator.sandboxes.records import SandboxRecord
from emberbox.orchestrator.sandboxes.sandbox import Sandbox, machine_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.sandboxes.sandbox import Host
    from emberbox.orchestrator.templates.catalog import TemplateCatalog
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What the API server asks for. `end_time` is in unix seconds."""

    identity: Identity
    build_id: str
    end_time: float
    internet: bool
    metadata: dict[str, str]
    traffic_token: str | None = None
    cold: bool = False


class Sandboxes:
    """Creates, finds and ends the sandboxes of one host."""

    def __init__(self, host: Host, templates: TemplateCatalog, limits: admission.Limits) -> None:
        self._host = host
        self._templates = templates
        self._limits = limits
        self._sandboxes: dict[str, Sandbox] = {}

    async def create(self, request: CreateRequest) -> Sandbox:
        """Start a sandbox and return when it is ready; the same request twice is one sandbox.

        Raises AdmissionRefused, TemplateMissing, RunConflict, MachineError or OSError. A caller
        that is cancelled leaves the start going.
        """
        identity = request.identity
        known = self._sandboxes.get(identity.sandbox_id)
        if known is not None:
            if known.record.execution_id != identity.execution_id:
                raise RunConflict(f"sandbox {identity.sandbox_id} runs as another execution")
            await known.settled()
            return known
        template = self._templates.get(identity.template_id, request.build_id)
        sandbox = self._admit(request, template)
        sandbox.begin(template, identity, cold=request.cold)
        await sandbox.settled()
        return sandbox

    def _admit(self, request: CreateRequest, template: Template) -> Sandbox:
        """Check and register in one go, with no await between: a burst cannot overfill the host."""
        identity = request.identity
        admission.check(self._limits, self._usage(), template.hardware)
        record = SandboxRecord(
            sandbox_id=identity.sandbox_id,
            execution_id=identity.execution_id,
            template_id=identity.template_id,
            build_id=template.build_id,
            slot=-1,
            vcpu=template.hardware.vcpu,
            ram_mb=template.hardware.ram_mb,
            disk_mb=template.manifest.disk_mb,
            internet=request.internet,
            start_time=time.time(),
            end_time=request.end_time,
            traffic_token=request.traffic_token,
            metadata=request.metadata,
        )
        return self._register(Sandbox(self._host, record))

    def get(self, sandbox_id: str) -> Sandbox:
        """A sandbox that is not wholly gone. Raises SandboxMissing."""
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise SandboxMissing(f"sandbox {sandbox_id} is not on this host") from None

    def running(self) -> list[Sandbox]:
        """Those that run."""
        return [s for s in self._sandboxes.values() if s.state is State.RUNNING]

    def __iter__(self) -> Iterator[Sandbox]:
        """All that are not wholly gone."""
        return iter(list(self._sandboxes.values()))

    def update(self, sandbox_id: str, end_time: float, execution_id: str | None) -> None:
        """Move a deadline. Raises SandboxMissing or RunConflict."""
        sandbox = self.get(sandbox_id)
        if sandbox.state is not State.RUNNING:
            raise SandboxMissing(f"sandbox {sandbox_id} is not running")
        if execution_id is not None and sandbox.record.execution_id != execution_id:
            raise RunConflict(f"sandbox {sandbox_id} runs as another execution")
        sandbox.set_deadline(end_time)

    async def delete(self, sandbox_id: str, reason: str) -> None:
        """End a sandbox and return when nothing of it is left. Raises SandboxMissing."""
        await self.get(sandbox_id).end(Outcome.KILLED, reason)

    async def end_all(self, reason: str) -> int:
        """End every sandbox; how many there were."""
        sandboxes = list(self)
        await asyncio.gather(*(s.end(Outcome.KILLED, reason) for s in sandboxes))
        return len(sandboxes)

    async def adopt_all(self) -> set[int]:
        """Take hold of every VM that still lives and reclaim what is dead.

        Returns the slots in use. Before anything else at start-up: the VMs' deadlines wait.
        """
        records = self._host.directories.load_all()
        sandboxes = [self._register(Sandbox(self._host, record)) for record in records]
        await asyncio.gather(*(sandbox.adopt() for sandbox in sandboxes))
        _kill_strays(self._host.node, {record.sandbox_id for record in records})
        _log.info("adopted", running=len(self.running()), found=len(records))
        return {s.slot_index for s in sandboxes if s.slot_index is not None}

    async def detach_all(self) -> None:
        """Leave every VM running for the next orchestrator."""
        await asyncio.gather(*(sandbox.detach() for sandbox in self))

    def _register(self, sandbox: Sandbox) -> Sandbox:
        sandbox_id = sandbox.record.sandbox_id
        self._sandboxes[sandbox_id] = sandbox
        sandbox.when_ended(lambda: self._sandboxes.pop(sandbox_id, None))
        return sandbox

    def _usage(self) -> admission.Usage:
        total, available = admission.memory_mb()
        return admission.Usage(
            sandboxes=len(self._sandboxes),
            ram_promised_mb=sum(s.record.ram_mb for s in self._sandboxes.values()),
            memory_total_mb=total,
            memory_available_mb=available,
            disk_available_mb=admission.disk_available_mb(self._host.directories.root),
        )


def _kill_strays(node: str, known: set[str]) -> None:
    """End VMMs of this node that no record names: a crash came between spawn and record."""
    prefix = machine_name(node, "")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ProcessLookupError):
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            names = [a for a in arguments if a.startswith(prefix)]
            if names and names[0].removeprefix(prefix) not in known:
                send_signal(identify(int(process.name)), signal.SIGKILL)
                _log.warning("ended a stray VMM", pid=int(process.name), name=names[0])
