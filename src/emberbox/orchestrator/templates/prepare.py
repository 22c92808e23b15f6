"""Making a host ready for sandboxes: images first, then the snapshot of each template."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import threads
from emberbox.orchestrator.errors import OrchestratorError
from emberbox.orchestrator.images import ensure_images
from emberbox.orchestrator.templates import pins
from emberbox.orchestrator.templates.store import TemplateSpec
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.images import ImageSet, ImageStore, OwnKernel
    from emberbox.orchestrator.machines.driver import Hardware
    from emberbox.orchestrator.readiness import Readiness
    from emberbox.orchestrator.templates.build import Builder
    from emberbox.orchestrator.templates.catalog import TemplateCatalog
    from emberbox.orchestrator.templates.store import Template, TemplateStore

_log = structlog.get_logger(__name__)

BASE_TEMPLATE_ID = "emberboxbasetemplate"


def base_template(hardware: Hardware, disk_mb: int) -> TemplateSpec:
    """The template that every installation has."""
    return TemplateSpec(BASE_TEMPLATE_ID, ("base",), hardware, disk_mb)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Brings the template of this host up to date and offers it.

    `in_use` names the builds that sandboxes, running or paused, need: they stay, and with them
    the images they were built on, though no new sandbox starts from them.
    """

    spec: TemplateSpec
    images: ImageStore
    templates: TemplateStore
    catalog: TemplateCatalog
    builder: Builder
    readiness: Readiness
    in_use: Callable[[], set[str]]
    own_kernel: OwnKernel | None = None
    tidy_seconds: float = 60.0

    async def run(self) -> None:
        """Offer what is there at once; then make what this installation wants.

        An older build goes on serving while a newer one is made, and when that fails. Raises
        StartupError, OrchestratorError or OSError when there is none to clone from.
        """
        fits = self._offer_present()
        try:
            await self._renew()
        except (StartupError, OrchestratorError, OSError) as error:
            if not fits:
                raise
            _log.error("the template cannot be renewed, an older build goes on", reason=str(error))

    async def keep_tidy(self) -> None:
        """After `run`: remove older builds when the last sandbox that stands on one is gone."""
        while True:
            await asyncio.sleep(self.tidy_seconds)
            try:
                for offered in self.catalog.all():
                    await self.drop_unused(offered)
            except OSError as error:
                _log.error("older builds were not removed", reason=str(error))

    async def _renew(self) -> None:
        # A thread that the program does not wait for: building takes minutes, and what is left
        # half made is swept by the next build.
        images = await asyncio.wrap_future(threads.start(self._ensure_images, "emberbox-images"))
        template = await self.builder.ensure(self.spec, images, self._report)
        await asyncio.to_thread(pins.pin, self.images, template)
        self.catalog.offer(template)
        self.readiness.done()
        await self.drop_unused(template)

    def _ensure_images(self) -> ImageSet:
        progress = _Reported(self.readiness)
        return ensure_images(self.images, progress, own_kernel=self.own_kernel)

    def _report(self, doing: str) -> None:
        _log.info("renewing", doing=doing)
        self.readiness.report(doing)

    def _offer_present(self) -> bool:
        """Offer the best of what is there; whether sandboxes can be cloned from it."""
        present = [build for build in self.templates.builds(self.spec) if build.bootable]
        made_with = self.builder.driver.made_with
        fitting = [build for build in present if build.manifest.made_with == made_with]
        # One whose memory is another VMM's still has its files: until there is a newer one
        # sandboxes boot from them.
        if usable := fitting or present:
            self.catalog.offer(max(usable, key=lambda build: build.directory.stat().st_mtime))
            self.readiness.done()
        return bool(fitting)

    async def drop_unused(self, offered: Template) -> None:
        """Remove older builds of the template that nothing stands on."""
        builds = await asyncio.to_thread(self.templates.builds, self.spec)
        needed = {offered.build_id} | await asyncio.to_thread(self.in_use)
        for other in (build for build in builds if build.build_id not in needed):
            _log.info("removing an older build", template=self.spec.names[0], build=other.build_id)
            self.builder.driver.forget(other.snapshot)
            # Unlinking gigabytes, like waiting for the store's lock, is not for the event loop.
            await asyncio.to_thread(self.templates.remove, other)
        await asyncio.to_thread(pins.unpin_gone, self.images, self.templates)


class _Reported:
    """The image build's progress as one line of status."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def step(self, name: str, fraction: float | None) -> None:
        """Say what is being made."""
        percent = f" {fraction:.0%}" if fraction else ""
        self._readiness.report(f"images: {name}{percent}")
