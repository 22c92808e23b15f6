"""All sandboxes of this host: what the gRPC service calls."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.errors import AdmissionRefused, BadRequest, RunConflict, SandboxMissing
from emberbox.orchestrator.processes import identify, kill_and_wait
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.holdings import machine_name
from emberbox.orchestrator.sandboxes.lifecycle import Outcome, State
from emberbox.orchestrator.sandboxes.records import SandboxRecord
from emberbox.orchestrator.sandboxes.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.processes import ProcessIdentity
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.templates.catalog import TemplateCatalog
    from emberbox.orchestrator.templates.store import Template

_log = structlog.get_logger(__name__)

# It names a directory, a process and a host: nothing else may be in it.
_SANDBOX_ID = re.compile(r"[a-z0-9]{1,63}")


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
        self._closing = False

    async def create(self, request: CreateRequest) -> Sandbox:
        """Start a sandbox and return when it is ready; the same request twice is one sandbox.

        Raises AdmissionRefused, TemplateMissing, RunConflict, MachineError or OSError. A caller
        that is cancelled leaves the start going.
        """
        identity = request.identity
        if not _SANDBOX_ID.fullmatch(identity.sandbox_id) or not identity.execution_id:
            raise BadRequest(
                f"sandbox_id {identity.sandbox_id!r} must be letters and digits, with"
                " an execution_id"
            )
        if self._closing:
            raise AdmissionRefused("the host is being shut down")
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
            envd_token=identity.access_token or None,
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
        """End every sandbox and take no more; how many there were."""
        self._closing = True
        sandboxes = list(self)
        ends = (s.end(Outcome.KILLED, reason) for s in sandboxes)
        await asyncio.gather(*ends, return_exceptions=True)
        return len(sandboxes)

    async def adopt_all(self) -> set[int]:
        """Take hold of every VM that still lives and reclaim what is dead.

        Returns the slots in use. Before anything else at start-up: the VMs' deadlines wait.
        """
        records = self._host.directories.load_all()
        # A VMM that no record names was being started when its orchestrator was killed. It goes
        # first: its slot, and with it its uid, may be given to another.
        await _end_strays(self._host, {record.process for record in records})
        sandboxes = [self._register(Sandbox(self._host, record)) for record in records]
        results = await asyncio.gather(*(s.adopt() for s in sandboxes), return_exceptions=True)
        for sandbox, result in zip(sandboxes, results, strict=True):
            if isinstance(result, BaseException):
                _log.error("adoption failed", sandbox_id=sandbox.record.sandbox_id, exc_info=result)
        _log.info("adopted", running=len(self.running()), found=len(records))
        return {s.slot_index for s in sandboxes if s.slot_index is not None}

    async def detach_all(self) -> None:
        """Leave every VM running for the next orchestrator."""
        await asyncio.gather(*(sandbox.detach() for sandbox in self), return_exceptions=True)

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
            starting=sum(s.state is State.STARTING for s in self._sandboxes.values()),
        )


async def _end_strays(host: Host, known: set[ProcessIdentity | None]) -> None:
    for identity in await asyncio.to_thread(_vmms, host):
        if identity not in known:
            _log.warning("ending a stray VMM", pid=identity.pid)
            await kill_and_wait(identity)


def _vmms(host: Host) -> list[ProcessIdentity]:
    """The live VMMs of this node, by their name and uid."""
    prefix = machine_name(host.node, "")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ProcessLookupError):
            if process.stat().st_uid >= host.uid_base and _is_named(process, prefix):
                found.append(identify(int(process.name)))
    return found


def _is_named(process: Path, prefix: str) -> bool:
    arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    names = (value for flag, value in itertools.pairwise(arguments) if flag == "-name")
    return any(name.startswith(prefix) for name in names)
