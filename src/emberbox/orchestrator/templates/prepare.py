"""Making a host ready for sandboxes: images first, then the snapshot of each template."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.images import ensure_images
from emberbox.orchestrator.templates.store import TemplateSpec

if TYPE_CHECKING:
    from emberbox.orchestrator.images import ImageStore
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
    """Brings the template of this host up to date and offers it."""

    spec: TemplateSpec
    images: ImageStore
    templates: TemplateStore
    catalog: TemplateCatalog
    builder: Builder
    readiness: Readiness

    async def run(self) -> None:
        """Offer what is there at once; then make what this installation wants.

        A build that still fits the VMM goes on serving while a newer one is made.
        Raises StartupError, MachineError or OSError.
        """
        self.templates.sweep()
        self._offer_present()
        images = await asyncio.to_thread(ensure_images, self.images, _Reported(self.readiness))
        template = await self.builder.ensure(self.spec, images, self.readiness.report)
        self._pin(template)
        self.catalog.offer(template)
        self.readiness.done()
        self._drop_others(template)

    def _offer_present(self) -> None:
        usable = [
            template
            for template in self.templates.builds(self.spec)
            if template.manifest.made_with == self.builder.driver.made_with
        ]
        if usable:
            self.catalog.offer(usable[-1])
            self.readiness.done()

    def _pin(self, template: Template) -> None:
        for image in template.manifest.images.values():
            self.images.pin(image, _pin_name(template))

    def _drop_others(self, template: Template) -> None:
        """Running clones hold what they need of an older build open; no new one will start."""
        for other in self.templates.builds(self.spec):
            if other.build_id == template.build_id:
                continue
            _log.info("removing an older build", template=self.spec.names[0], build=other.build_id)
            self.templates.remove(other)
            for image in other.manifest.images.values():
                self.images.unpin(image, _pin_name(other))


class _Reported:
    """The image build's progress as one line of status."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def step(self, name: str, fraction: float | None) -> None:
        """Say what is being made."""
        percent = f" {fraction:.0%}" if fraction else ""
        self._readiness.report(f"images: {name}{percent}")


def _pin_name(template: Template) -> str:
    return f"template-{template.build_id}"
