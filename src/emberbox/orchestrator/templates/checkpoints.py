"""Builds made of running sandboxes: kept, offered, and removed when nothing stands on them."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from emberbox.orchestrator import failpoints, threads
from emberbox.orchestrator.errors import BuildInUse
from emberbox.orchestrator.templates import pins
from emberbox.orchestrator.templates.store import SCRATCH_FILE, SNAPSHOT_DIRECTORY, Manifest
from emberbox.shared.sidefile import sync_file

if TYPE_CHECKING:
    from collections.abc import Collection

    from emberbox.orchestrator.images import ImageStore
    from emberbox.orchestrator.machines.driver import Driver
    from emberbox.orchestrator.sandboxes.copying import Draft
    from emberbox.orchestrator.templates.catalog import TemplateCatalog
    from emberbox.orchestrator.templates.store import Template, TemplateStore


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that sandboxes can be made from. Sizes are in bytes on disk."""

    template: Template
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one host."""

    driver: Driver
    images: ImageStore
    builds: TemplateStore
    catalog: TemplateCatalog

    def load(self) -> None:
        """Offer those of earlier starts."""
        for build in self.builds.all():
            if build.manifest.checkpoint:
                self.catalog.offer_checkpoint(build)

    async def keep(self, draft: Draft) -> Kept:
        """Make a build of a copy and offer it.

        Raises SnapshotUnusable or OSError; nothing is left then.
        """
        try:
            layered = draft.saved is not None and await self._materialise(draft)
            template = await threads.run_to_end(partial(self._finish, draft, layered=layered))
        except BaseException:
            await asyncio.to_thread(draft.abandon)
            raise
        self.catalog.offer_checkpoint(template)
        return await asyncio.to_thread(measured, template)

    async def remove(self, template_id: str, build_id: str, in_use: Collection[str]) -> None:
        """Remove a checkpoint. Raises TemplateMissing, or BuildInUse when it is `in_use`."""
        template = self.catalog.checkpoint(template_id, build_id)
        if build_id in in_use:
            raise BuildInUse(f"sandboxes, running or paused, stand on build {build_id}")
        self.catalog.withdraw_checkpoint(template_id, build_id)
        self.driver.forget(template.snapshot)
        await threads.run_to_end(partial(self._remove, template))

    async def _materialise(self, draft: Draft) -> bool:
        """Make the build's snapshot; whether it lies over that of another build."""
        directory = draft.work / SNAPSHOT_DIRECTORY
        await asyncio.to_thread(directory.mkdir, 0o700)
        base = draft.base.manifest
        made = await self.driver.materialise(
            draft.base.snapshot,
            draft.memory,
            directory,
            # Never over a checkpoint: that can be deleted as long as no sandbox stands on it.
            layered=base.base is not None or not base.checkpoint,
        )
        return made.base is not None

    def _finish(self, draft: Draft, *, layered: bool) -> Template:
        shutil.rmtree(draft.memory, ignore_errors=True)
        sync_file(draft.work / SCRATCH_FILE)
        failpoints.reach("copy-materialised")
        template = self.builds.finish(draft.spec, draft.work, _manifest(draft, layered=layered))
        # A crash before this leaves it without pins until it is removed: the base has the same.
        pins.pin(self.images, template)
        return template

    def _remove(self, template: Template) -> None:
        self.builds.remove(template)
        for image in template.manifest.images.values():
            self.images.unpin(image, pins.pin_name(template))


def measured(template: Template) -> Kept:
    """With what it takes on the disk."""
    directory = template.directory / SNAPSHOT_DIRECTORY
    files = directory.iterdir() if directory.is_dir() else ()
    memory = sum(file.stat().st_blocks * 512 for file in files)
    return Kept(template, memory, template.scratch.stat().st_blocks * 512)


def _manifest(draft: Draft, *, layered: bool) -> Manifest:
    record, base = draft.record, draft.base.manifest
    own = draft.base.spec.template_id, draft.base.build_id
    return Manifest(
        build_id=draft.wanted.build_id,
        key="",
        made_with=draft.saved.made_with if draft.saved else "",
        envd_version=record.envd_version,
        vcpu=record.vcpu,
        ram_mb=record.ram_mb,
        disk_mb=record.disk_mb,
        images=base.images,
        files=base.files,
        checkpoint=True,
        memory=draft.saved is not None,
        base=(base.base or own) if layered else None,
        envd_token=record.envd_token,
    )
