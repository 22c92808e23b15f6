"""All sandboxes of this host: what the gRPC service calls."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.errors import (
    AdmissionRefused,
    BadRequest,
    RunConflict,
    SandboxMissing,
    TemplateMissing,
)
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.processes import identify, kill_and_wait
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.beginning import (
    choose_start,
    choose_way,
    new_record,
    resumed_record,
)
from emberbox.orchestrator.sandboxes.holdings import Beginning, machine_name
from emberbox.orchestrator.sandboxes.lifecycle import Outcome, State
from emberbox.orchestrator.sandboxes.sandbox import Sandbox
from emberbox.orchestrator.snapshots.store import is_execution_id
from emberbox.orchestrator.templates.checkpoints import measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.pool.pool import PoolCounts, WarmPool
    from emberbox.orchestrator.processes import ProcessIdentity
    from emberbox.orchestrator.sandboxes.beginning import CreateRequest
    from emberbox.orchestrator.sandboxes.copying import Wanted
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.lifecycle import PauseRequested
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.snapshots.manifest import Snapshot
    from emberbox.orchestrator.templates.catalog import TemplateCatalog
    from emberbox.orchestrator.templates.checkpoints import Checkpoints, Kept

_log = structlog.get_logger(__name__)

# It names a directory, a process and a host: nothing else may be in it.
_SANDBOX_ID = re.compile(r"[a-z0-9]{1,63}")
_RUNS = (State.RUNNING, State.COPYING)


class Sandboxes:
    """Creates, finds and ends the sandboxes of one host."""

    def __init__(
        self,
        host: Host,
        templates: TemplateCatalog,
        checkpoints: Checkpoints,
        limits: admission.Limits,
        pool: WarmPool,
    ) -> None:
        self._host = host
        self._pool = pool
        self._checkpoints = checkpoints
        self._templates = templates
        self._limits = limits
        self._sandboxes: dict[str, Sandbox] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._closing = False

    async def create(self, request: CreateRequest) -> Sandbox:
        """Start a sandbox, or continue a paused one, and return when it is ready.

        The same request twice is one sandbox; one that is being paused is waited for. A caller
        that is cancelled leaves the start going.
        Raises AdmissionRefused, TemplateMissing, SandboxMissing, RunConflict, MachineError or
        OSError.
        """
        _check_ids(request.identity)
        while (known := self._sandboxes.get(request.identity.sandbox_id)) is not None:
            if known.record.execution_id == request.identity.execution_id:
                await known.settled()
                return known
            if not (request.snapshot and known.is_pausing):
                raise RunConflict(f"sandbox {known.record.sandbox_id} runs as another execution")
            await known.unpaused()
        if self._closing:
            raise AdmissionRefused("the host is being shut down")
        # No await until it is registered: of two that come at once the second finds the first.
        sandbox = self._resume(request) if request.snapshot else self._clone(request)
        await sandbox.settled()
        return sandbox

    def _clone(self, request: CreateRequest) -> Sandbox:
        identity = request.identity
        if self._host.snapshots.find(identity.sandbox_id) is not None:
            raise RunConflict(f"sandbox {identity.sandbox_id} is paused")
        template = self._templates.get(identity.template_id, request.build_id)
        way = choose_start(self._host, template, cold=request.cold)
        beginning = Beginning(template, identity, way.cold)
        return self._admit(new_record(request, way), beginning, request.group)

    def _resume(self, request: CreateRequest) -> Sandbox:
        identity = request.identity
        snapshot = self._host.snapshots.find(identity.sandbox_id)
        if snapshot is None:
            raise SandboxMissing(f"sandbox {identity.sandbox_id} is not paused on this host")
        way = choose_way(self._host, snapshot, cold=request.cold)
        record = resumed_record(request, snapshot, way)
        identity = dataclasses.replace(identity, template_id=record.template_id)
        if way.cold:  # its envd starts anew and has none
            identity = dataclasses.replace(identity, env_vars=record.env_vars)
        beginning = Beginning(way.template, identity, way.cold, snapshot)
        return self._admit(record, beginning, request.group)

    def _admit(self, record: SandboxRecord, beginning: Beginning, group: str) -> Sandbox:
        """Check and register in one go, with no await between: a burst cannot overfill the host."""
        asked = Hardware(record.vcpu, record.ram_mb)
        usage = self._usage().without_clones(self._pool.machines)
        admission.check(self._limits, usage, asked)
        if not (beginning.cold or beginning.snapshot):
            clone = self._pool.take(beginning.template.build_id)
            beginning = dataclasses.replace(beginning, clone=clone)
        sandbox = Sandbox(self._host, record)
        sandbox.begin(beginning, group)
        self._pool.look()
        return self._register(sandbox)

    @property
    def pool(self) -> PoolCounts:
        """The warm clones, which are none of the sandboxes."""
        return self._pool.counts

    def clone_room(self) -> int:
        """How many more warm clones memory holds; negative when there are too many."""
        clones = self._pool.records()
        usage = self._usage()
        promised = usage.ram_promised_mb + sum(clone.ram_mb for clone in clones)
        largest = max((t.hardware.ram_mb for t in self._templates.all()), default=1)
        usage = dataclasses.replace(usage, ram_promised_mb=promised)
        return admission.clone_room(self._limits, usage, largest)

    def get(self, sandbox_id: str) -> Sandbox:
        """A sandbox that is not wholly gone. Raises SandboxMissing."""
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise SandboxMissing(f"sandbox {sandbox_id} is not on this host") from None

    def running(self) -> list[Sandbox]:
        """Those that run."""
        return [s for s in self._sandboxes.values() if s.state in _RUNS]

    def __iter__(self) -> Iterator[Sandbox]:
        """All that are not wholly gone."""
        return iter(list(self._sandboxes.values()))

    def update(self, sandbox_id: str, end_time: float, execution_id: str | None) -> None:
        """Move a deadline. Raises SandboxMissing or RunConflict."""
        sandbox = self.get(sandbox_id)
        if sandbox.state not in _RUNS:
            raise SandboxMissing(f"sandbox {sandbox_id} is not running")
        if execution_id is not None and sandbox.record.execution_id != execution_id:
            raise RunConflict(f"sandbox {sandbox_id} runs as another execution")
        sandbox.set_deadline(end_time)

    async def pause(self, sandbox_id: str, execution_id: str, wanted: PauseRequested) -> Snapshot:
        """Write a sandbox to disk and end its VM; what is left of it.

        For an execution that was paused already its snapshot again. Raises SandboxMissing,
        RunConflict, GuestUnhealthy, AdmissionRefused, MachineError or OSError; it runs on after the
        last four.
        """
        known = self._sandboxes.get(sandbox_id)
        if known is None:
            return self._paused_before(sandbox_id, execution_id)
        if known.record.execution_id != execution_id:
            raise RunConflict(f"sandbox {sandbox_id} runs as another execution")
        await known.settled()
        return await known.pause(wanted)

    async def checkpoint(self, sandbox_id: str, execution_id: str, wanted: Wanted) -> Kept:
        """Make a template build of a running sandbox, which goes on; the same twice is one.

        Raises SandboxMissing, RunConflict, BadRequest, AdmissionRefused, MachineError or OSError.
        """
        self._check_wanted(wanted)
        sandbox = self.get(sandbox_id)
        if sandbox.record.execution_id != execution_id:
            raise RunConflict(f"sandbox {sandbox_id} runs as another execution")
        making = self._making.setdefault(wanted.build_id, asyncio.Lock())
        async with making:
            try:
                return await self._made_before(wanted)
            except TemplateMissing:
                await sandbox.settled()
                return await self._checkpoints.keep(await sandbox.checkpoint(wanted))
            finally:
                self._making.pop(wanted.build_id, None)

    async def _made_before(self, wanted: Wanted) -> Kept:
        found = self._templates.checkpoint(wanted.template_id, wanted.build_id)
        return await asyncio.to_thread(measured, found)

    def _check_wanted(self, wanted: Wanted) -> None:
        for name in ("template_id", "build_id"):
            if not is_execution_id(value := getattr(wanted, name)):
                raise BadRequest(f"{name} {value!r} must be letters, digits and dashes")
        if any(wanted.template_id == own.spec.template_id for own in self._templates.all()):
            raise BadRequest(f"template_id {wanted.template_id!r} is a template of the host's own")

    async def remove_checkpoint(self, template_id: str, build_id: str) -> None:
        """Remove what `checkpoint` made. Raises TemplateMissing or BuildInUse."""
        # No await between the look and its withdrawal: no sandbox begins with it in between.
        await self._checkpoints.remove(template_id, build_id, self.builds_in_use())

    def _paused_before(self, sandbox_id: str, execution_id: str) -> Snapshot:
        snapshot = self._find_snapshot(sandbox_id)
        if snapshot is None or snapshot.execution_id != execution_id:
            raise SandboxMissing(f"sandbox {sandbox_id} does not run on this host")
        return snapshot

    def _find_snapshot(self, sandbox_id: str) -> Snapshot | None:
        if not _SANDBOX_ID.fullmatch(sandbox_id):
            return None
        return self._host.snapshots.find(sandbox_id)

    async def paused(self) -> list[Snapshot]:
        """Those that are paused, and not about to run."""
        snapshots = await asyncio.to_thread(self._host.snapshots.all)
        return [s for s in snapshots if s.sandbox_id not in self._sandboxes]

    def builds_in_use(self) -> set[str]:
        """Template builds that a sandbox, running or paused, could not go on without."""
        running = {sandbox.record.build_id for sandbox in self}
        warm = {clone.build_id for clone in self._pool.records()}
        return running | warm | self._host.snapshots.builds()

    async def delete(self, sandbox_id: str, reason: str) -> None:
        """End a sandbox, running or paused, and return when nothing of it is left.

        Raises SandboxMissing.
        """
        known = self._sandboxes.get(sandbox_id)
        if known is not None:
            await known.end(Outcome.KILLED, reason)
        # Also when its pause had won.
        there = sandbox_id not in self._sandboxes and self._find_snapshot(sandbox_id) is not None
        if there:
            await asyncio.to_thread(self._host.snapshots.discard, sandbox_id)
        if known is None and not there:
            raise SandboxMissing(f"sandbox {sandbox_id} is not on this host")

    async def end_all(self, reason: str) -> int:
        """End every sandbox that runs and take no more; how many there were.

        One that is being paused is paused.
        """
        self._closing = True
        sandboxes = list(self)
        ends = (self._end_or_pause(s, reason) for s in sandboxes)
        await asyncio.gather(*ends, return_exceptions=True)
        return len(sandboxes)

    async def _end_or_pause(self, sandbox: Sandbox, reason: str) -> None:
        await sandbox.unpaused()
        await sandbox.end(Outcome.KILLED, reason)

    async def adopt_all(self) -> set[int]:
        """Take hold of every VM that still lives and reclaim what is dead.

        Returns the slots in use. Before anything else at start-up: the VMs' deadlines wait.
        """
        records = self._host.directories.load_all()
        # A VMM that no record names was being started when its orchestrator was killed. It goes
        # first: its slot, and with it its uid, may be given to another.
        known = {record.process for record in records} | self._pool.processes
        await _end_strays(self._host, known)
        warm = await self._pool.adopt()
        runs = {(record.sandbox_id, record.execution_id) for record in records}
        await asyncio.to_thread(self._host.snapshots.sweep, runs)
        sandboxes = [self._register(Sandbox(self._host, record)) for record in records]
        results = await asyncio.gather(*(s.adopt() for s in sandboxes), return_exceptions=True)
        for sandbox, result in zip(sandboxes, results, strict=True):
            if isinstance(result, BaseException):
                _log.error("adoption failed", sandbox_id=sandbox.record.sandbox_id, exc_info=result)
        _log.info(
            "adopted",
            running=len(self.running()),
            found=len(records),
            warm_clones=self._pool.counts.ready,
        )
        return warm | {s.slot_index for s in sandboxes if s.slot_index is not None}

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


def _check_ids(identity: Identity) -> None:
    if not _SANDBOX_ID.fullmatch(identity.sandbox_id):
        raise BadRequest(f"sandbox_id {identity.sandbox_id!r} must be small letters and digits")
    if not is_execution_id(identity.execution_id):
        raise BadRequest(
            f"execution_id {identity.execution_id!r} must be letters, digits and dashes"
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
