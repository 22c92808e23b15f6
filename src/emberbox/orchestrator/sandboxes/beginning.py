"""What a sandbox begins with: a template, or the snapshot of the run before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.sandboxes.holdings import booted_from_files
from emberbox.orchestrator.sandboxes.records import SandboxRecord

if TYPE_CHECKING:
    from emberbox.orchestrator.envd_client import Identity
    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.snapshots.manifest import Snapshot
    from emberbox.orchestrator.templates.catalog import TemplateCatalog
    from emberbox.orchestrator.templates.store import Template


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What the API server asks for. `end_time` is in unix seconds.

    cold:     boot from files, the template's or those of the paused sandbox
    snapshot: continue the paused sandbox of this id
    group:    those of one group wait for one another when many start; means nothing else
    """

    identity: Identity
    build_id: str
    end_time: float
    internet: bool
    metadata: dict[str, str]
    traffic_token: str | None = None
    cold: bool = False
    snapshot: bool = False
    auto_pause: bool = False
    auto_pause_files_only: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """How a sandbox starts. `notice` says so when it is not as the caller would expect."""

    template: Template
    cold: bool
    notice: str = ""


def choose_start(host: Host, template: Template, *, cold: bool) -> Way:
    """From the memory of a template, or else from its files."""
    if cold or not template.manifest.memory:
        return Way(template, cold=True)
    if template.manifest.made_with != host.driver.made_with:
        why = _another_vmm(template.manifest.made_with, host)
        return Way(template, cold=True, notice=booted_from_files(why))
    return Way(template, cold=False)


def clonable(host: Host, catalog: TemplateCatalog) -> list[Template]:
    """The host's own templates whose sandboxes start from memory."""
    return [t for t in catalog.all() if not choose_start(host, t, cold=False).cold]


def choose_way(host: Host, snapshot: Snapshot, *, cold: bool) -> Way:
    """With its memory on the very build it ran on, or else from its files.

    Raises MachineError when no build on this host has its root image.
    """
    build = host.builds.get(snapshot.template_id, snapshot.build_id)
    why = _why_from_files(host, snapshot, build)
    if build is not None and snapshot.memory and not (why or cold):
        return Way(build, cold=False)
    notice = booted_from_files(why) if why else ""
    return Way(_bootable(host, snapshot, build), cold=True, notice=notice)


def _why_from_files(host: Host, snapshot: Snapshot, build: Template | None) -> str:
    """Why its memory cannot be loaded; empty when it can, or was never saved."""
    if snapshot.lost:
        return snapshot.lost
    if not snapshot.memory:
        return ""
    if build is None or not build.bootable or build.manifest.images != snapshot.images:
        return "the images that it ran on are not on this host any more"
    if snapshot.made_with != host.driver.made_with:
        return _another_vmm(snapshot.made_with, host)
    return ""


def _another_vmm(made_with: str, host: Host) -> str:
    return (
        f"its memory was saved by another VMM than this host's: {made_with};"
        f" here: {host.driver.made_with}"
    )


def _bootable(host: Host, snapshot: Snapshot, build: Template | None) -> Template:
    """Its own build, or the newest with the root image that its disk lies over."""
    if build is not None and build.bootable:
        return build
    root = snapshot.images.get("root")
    fitting = [b for b in host.builds.all() if b.bootable and b.manifest.images.get("root") == root]
    if not fitting:
        raise MachineError(
            f"sandbox {snapshot.sandbox_id} cannot be resumed: its root image {root} is not on"
            " this host any more"
        )
    return max(fitting, key=lambda b: b.directory.stat().st_mtime)


def new_record(request: CreateRequest, way: Way) -> SandboxRecord:
    """The record of a sandbox that is made from a template."""
    identity, template = request.identity, way.template
    return SandboxRecord(
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
        env_vars=dict(identity.env_vars),
        metadata=request.metadata,
        auto_pause=request.auto_pause,
        auto_pause_files_only=request.auto_pause_files_only,
        notice=way.notice,
    )


def resumed_record(request: CreateRequest, snapshot: Snapshot, way: Way) -> SandboxRecord:
    """The record of a run that continues a paused sandbox: its size is the snapshot's."""
    identity = request.identity
    return SandboxRecord(
        sandbox_id=identity.sandbox_id,
        execution_id=identity.execution_id,
        template_id=way.template.spec.template_id,
        build_id=way.template.build_id,
        slot=-1,
        vcpu=snapshot.vcpu,
        ram_mb=snapshot.ram_mb,
        disk_mb=snapshot.disk_mb,
        internet=request.internet,
        start_time=time.time(),
        end_time=request.end_time,
        traffic_token=request.traffic_token,
        envd_token=identity.access_token or None,
        env_vars=dict(identity.env_vars) or snapshot.env_vars,
        metadata=request.metadata or snapshot.metadata,
        auto_pause=request.auto_pause,
        auto_pause_files_only=request.auto_pause_files_only,
        resumed=True,
        notice=way.notice,
    )
