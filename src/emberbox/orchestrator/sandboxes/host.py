"""All sandboxes of this host: what the gRPC service calls."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections import Counter
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from emberbox.orchestrator.errors import (
    AdmissionRefused,
    BadRequest,
    RunConflict,
    SandboxMissing,
    TemplateMissing,
)
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.beginning import (
    Beginning,
    choose_start,
    choose_way,
    new_record,
    resumed_record,
)
from emberbox.orchestrator.sandboxes.lifecycle import Outcome, State
from emberbox.orchestrator.sandboxes.sandbox import Sandbox
from emberbox.orchestrator.sandboxes.saving import Paused
from emberbox.orchestrator.sandboxes.strays import end_strays
from emberbox.orchestrator.snapshots.store import is_execution_id
from emberbox.orchestrator.templates.checkpoints import measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.network.policy import EgressPolicy
    from emberbox.orchestrator.pool.pool import PoolCounts, WarmPool
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

_ENDING_SECONDS = 5.0
"""How long a full host waits for a sandbox that is ending before it refuses another."""


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
        self._copied: Counter[str] = Counter()
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
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
            if not (request.snapshot and known.saving.is_pausing):
                raise RunConflict(f"sandbox {known.record.sandbox_id} runs as another execution")
            await known.saving.unpaused()
        if self._closing:
            raise AdmissionRefused("the host is being shut down")
        # No await until it is registered: of two that come at once the second finds the first.
        try:
            sandbox = self._resume(request) if request.snapshot else self._clone(request)
        except AdmissionRefused:
            if not await self._one_has_ended():
                raise
            return await self.create(request)
        await sandbox.settled()
        return sandbox

    async def _one_has_ended(self) -> bool:
        """Whether there is more room, after a moment: a pause is answered before all is given
        back."""
        ending = [s.ended.wait() for s in self if s.state is State.ENDING]
        if not ending:
            return False
        waiting = [asyncio.create_task(wait) for wait in ending]
        try:
            done, _ = await asyncio.wait(
                waiting, timeout=_ENDING_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in waiting:
                task.cancel()
        return bool(done)

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

    def set_deadline(self, sandbox_id: str, execution_id: str | None, end_time: float) -> None:
        """Move a deadline. Raises SandboxMissing, RunConflict or OSError."""
        self._running(sandbox_id, execution_id).set_deadline(end_time)

    async def set_egress(
        self, sandbox_id: str, execution_id: str | None, policy: EgressPolicy
    ) -> None:
        """Replace what a sandbox may reach, in one step.

        Raises SandboxMissing, RunConflict, NetworkError or OSError; all is as before then.
        """
        await self._running(sandbox_id, execution_id).set_egress(policy)

    def _running(self, sandbox_id: str, execution_id: str | None) -> Sandbox:
        sandbox = self.get(sandbox_id)
        if sandbox.state not in _RUNS:
            raise SandboxMissing(f"sandbox {sandbox_id} is not running")
        if execution_id is not None and sandbox.record.execution_id != execution_id:
            raise RunConflict(f"sandbox {sandbox_id} runs as another execution")
        return sandbox

    async def pause(self, sandbox_id: str, execution_id: str, wanted: PauseRequested) -> Paused:
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
        return await known.saving.pause(wanted)

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
            # What it is a copy of is needed until it is kept, also when the sandbox has ended.
            self._copied.update([sandbox.record.build_id])
            try:
                return await self._checkpoints.keep(await sandbox.saving.checkpoint(wanted))
            finally:
                self._copied.subtract([sandbox.record.build_id])

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

    def _paused_before(self, sandbox_id: str, execution_id: str) -> Paused:
        snapshot = self._find_snapshot(sandbox_id)
        if snapshot is None or snapshot.execution_id != execution_id:
            raise SandboxMissing(f"sandbox {sandbox_id} does not run on this host")
        return Paused(snapshot, steps=[])

    def _find_snapshot(self, sandbox_id: str) -> Snapshot | None:
        if not _SANDBOX_ID.fullmatch(sandbox_id):
            return None
        return self._host.snapshots.find(sandbox_id)

    async def paused(self) -> list[Snapshot]:
        """Those that are paused, and not about to run."""
        snapshots = await asyncio.to_thread(self._host.snapshots.all)
        runs = {s.record.sandbox_id for s in self if not s.is_paused}
        return [s for s in snapshots if s.sandbox_id not in runs]

    def builds_in_use(self) -> set[str]:
        """Template builds that a sandbox, running or paused, or a checkpoint needs."""
        # Before and after: one that is paused or resumed meanwhile is seen in one of them.
        running = {sandbox.record.build_id for sandbox in self}
        paused = self._host.snapshots.builds()
        warm = {clone.build_id for clone in self._pool.records()}
        copied = {build for build, count in list(self._copied.items()) if count}
        below = self._templates.bases()
        after = {sandbox.record.build_id for sandbox in self}
        return running | paused | warm | copied | below | after

    async def delete(self, sandbox_id: str, reason: str) -> None:
        """End a sandbox, running or paused, and return when nothing of it is left.

        Raises SandboxMissing.
        """
        if sandbox_id not in self._sandboxes and self._find_snapshot(sandbox_id) is None:
            raise SandboxMissing(f"sandbox {sandbox_id} is not on this host")
        # Its pause may win against its end, and a resume may come before its snapshot is gone.
        while True:
            known = self._sandboxes.get(sandbox_id)
            if known is not None:
                await known.end(Outcome.KILLED, reason)
            elif self._find_snapshot(sandbox_id) is None:
                return
            else:
                await asyncio.to_thread(self._host.snapshots.discard, sandbox_id)

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
        await sandbox.saving.unpaused()
        await sandbox.end(Outcome.KILLED, reason)

    async def adopt_all(self) -> set[int]:
        """Take hold of every VM that still lives and reclaim what is dead.

        Returns the slots in use. Before anything else at start-up: the VMs' deadlines wait.
        """
        records = self._host.directories.load_all()
        # A VMM that no record names was being started when its orchestrator was killed. It goes
        # first: its slot, and with it its uid, may be given to another.
        known = {record.process for record in records} | self._pool.processes
        await end_strays(self._host, known)
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
