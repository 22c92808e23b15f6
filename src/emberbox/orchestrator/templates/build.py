"""Building a template: boot it once, warm it up, keep the running machine as a snapshot."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import envd_calls, envd_client, rehearsing
from emberbox.orchestrator.envd_connection import EnvdConnection
from emberbox.orchestrator.errors import GuestUnreachable
from emberbox.orchestrator.images.disks import copy_sparse, make_scratch
from emberbox.orchestrator.machines.driver import BootFiles, Surroundings
from emberbox.orchestrator.machines.watch import unless_ended
from emberbox.orchestrator.network.policy import CLOSED
from emberbox.orchestrator.sandboxes.holdings import BOOT_READY_SECONDS, machine_name
from emberbox.orchestrator.sandboxes.share import Shares
from emberbox.orchestrator.templates.store import (
    BLANK_FILE,
    SCRATCH_FILE,
    SNAPSHOT_DIRECTORY,
    Manifest,
    Template,
    TemplateSpec,
    build_key,
)
from emberbox.shared.ids import new_run_id
from emberbox.shared.protocol import ENVD_VERSION
from emberbox.shared.sidefile import sync_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emberbox.orchestrator.images import ImageSet
    from emberbox.orchestrator.machines.driver import Driver, Machine
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.sandboxes.share import Share
    from emberbox.orchestrator.templates.store import TemplateStore

_log = structlog.get_logger(__name__)

# What is run before the snapshot, so that a clone finds the files of a usual first command in its
# page cache and envd's code paths already taken.
WARM_UP = (
    "true",
    "true",
    "id; ls -la ~ /tmp; cat /etc/os-release; uname -a",
    "python3 -c 'import json, os, re, subprocess, sys'",
    "command -v node >/dev/null && node -e 0 || true",
    "sudo -n true || true",
    "true",
)
# /init is the one request that every create waits for: its second run is twice as fast.
WARM_UP_INITS = 5
_WARM_UP_SECONDS = 120.0

_SETTLE_SECONDS = 3.0
"""What the guest has put off (what is left of ended processes, its next timers) each clone would do
in the moment when somebody waits for its first answer."""


@dataclass(frozen=True, slots=True)
class Builder:
    """What building needs of the host."""

    node: str
    uid_base: int
    driver: Driver
    slots: SlotPool
    store: TemplateStore
    shares: Shares = field(default_factory=Shares)

    async def ensure(
        self, spec: TemplateSpec, images: ImageSet, progress: Callable[[str], None]
    ) -> Template:
        """The build of this template that fits images and VMM, made now when it is not here.

        Raises MachineError or OSError; nothing half made is left.
        """
        hashes = {str(kind): digest for kind, digest in images.hashes.items()}
        key = build_key(spec, hashes, self.driver.made_with)
        found = self.store.find(spec, key)
        if found is not None:
            return found
        build_id = new_run_id()
        work = self.store.begin(spec, build_id)
        try:
            await self._make(spec, images, work, progress)
            manifest = Manifest(
                build_id=build_id,
                key=key,
                made_with=self.driver.made_with,
                envd_version=ENVD_VERSION,
                vcpu=spec.hardware.vcpu,
                ram_mb=spec.hardware.ram_mb,
                disk_mb=spec.disk_mb,
                images=hashes,
                files=_boot_paths(images),
            )
            return await asyncio.to_thread(self.store.finish, spec, work, manifest)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    async def _make(
        self, spec: TemplateSpec, images: ImageSet, work: Path, progress: Callable[[str], None]
    ) -> None:
        progress(f"template {spec.names[0]}: booting")
        await asyncio.to_thread(make_scratch, work / BLANK_FILE, spec.disk_mb)
        await asyncio.to_thread(copy_sparse, work / BLANK_FILE, work / SCRATCH_FILE)
        slot = await self.slots.acquire(CLOSED)
        share = self.shares.of(slot.index, spec.hardware)
        try:
            machine = await self._boot(spec, images, work, slot, share)
            try:
                await unless_ended(machine, _warm_up(slot, spec, progress))
                progress(f"template {spec.names[0]}: taking its snapshot")
                await _snapshot(machine, work)
            finally:
                await machine.stop()
        finally:
            await share.remove()
            await self.slots.release(slot)

    async def _boot(
        self, spec: TemplateSpec, images: ImageSet, work: Path, slot: Slot, share: Share
    ) -> Machine:
        directory = work / "run"
        directory.mkdir(mode=0o700)
        place = Surroundings(
            name=machine_name(self.node, f"build-{spec.template_id}"),
            directory=directory,
            slot=slot,
            uid=self.uid_base + slot.index,
            scratch=work / SCRATCH_FILE,
            share=share,
        )
        boot = BootFiles(images.kernel, images.initrd, images.root, images.runtime)
        return await self.driver.boot(spec.hardware, boot, place)


async def _warm_up(slot: Slot, spec: TemplateSpec, progress: Callable[[str], None]) -> None:
    started = time.monotonic()
    await envd_client.wait_healthy(slot, BOOT_READY_SECONDS)
    booted = time.monotonic()
    progress(f"template {spec.names[0]}: warming up")
    for _ in range(WARM_UP_INITS):
        for initialize in (envd_client.initialize, envd_calls.initialize):
            await initialize(slot, _nobody(spec), _WARM_UP_SECONDS)
    await envd_calls.resume(slot, _nobody(spec), _WARM_UP_SECONDS, present="")
    await envd_calls.sync(slot, _WARM_UP_SECONDS)
    for command in WARM_UP:
        await rehearsing.run(slot, "-l", "-c", command, seconds=_WARM_UP_SECONDS, stdin=False)
    terminal = {"size": {"cols": 80, "rows": 24}}
    await rehearsing.run(slot, "-i", "-l", "-c", "exit", seconds=_WARM_UP_SECONDS, pty=terminal)
    await _sample(slot)
    await envd_calls.sync(slot, _WARM_UP_SECONDS)
    await asyncio.sleep(_SETTLE_SECONDS)
    _log.info(
        "template warm",
        template=spec.names[0],
        boot_seconds=round(booted - started, 1),
        warm_up_seconds=round(time.monotonic() - booted, 1),
    )


async def _snapshot(machine: Machine, work: Path) -> None:
    await machine.pause()
    directory = work / SNAPSHOT_DIRECTORY
    directory.mkdir(mode=0o700)
    await machine.snapshot(directory)
    await machine.stop()
    await asyncio.to_thread(sync_file, work / SCRATCH_FILE)
    shutil.rmtree(work / "run", ignore_errors=True)


async def _sample(slot: Slot) -> None:
    """Ask as for the first sample of a sandbox, which is then not the first of its envd."""
    connection = EnvdConnection(slot)
    try:
        async with asyncio.timeout(_WARM_UP_SECONDS):
            answer = await connection.get("/telemetry")
    finally:
        connection.close()
    if answer.status != 200:
        raise GuestUnreachable(f"envd refused /telemetry: {answer.status}")


def _nobody(spec: TemplateSpec) -> envd_client.Identity:
    """No token: envd stays open to its gateway, as before the first /init of a sandbox.

    The id is as long as any, so that the files that hold it keep their size in a clone.
    """
    return envd_client.Identity(f"i{0:020}", spec.template_id, "", "", {})


def _boot_paths(images: ImageSet) -> dict[str, str]:
    return {kind: str(getattr(images, kind)) for kind in ("kernel", "initrd", "root", "runtime")}
