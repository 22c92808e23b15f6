"""Which images a build needs, as pins in the image store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emberbox.orchestrator.images import ImageStore
    from emberbox.orchestrator.templates.store import Template, TemplateStore

PREFIX = "template-"


def pin_name(template: Template) -> str:
    """Who pins: the build."""
    return f"{PREFIX}{template.build_id}"


def pin(images: ImageStore, template: Template) -> None:
    """Keep what the build was made on. Raises FileNotFoundError when it is gone already."""
    for image in template.manifest.images.values():
        images.pin(image, pin_name(template))


def unpin_gone(images: ImageStore, builds: TemplateStore) -> None:
    """Drop the pins of builds that are gone.

    By what is pinned, not by what was removed: a crash may have come between the two. A build is
    whole before it pins, so the pins are listed first.
    """
    held = [
        (image.hash, holder)
        for image in images.images()
        for holder in images.pins(image.hash)
        if holder.startswith(PREFIX)
    ]
    kept = {pin_name(build) for build in builds.all()}
    for image, holder in held:
        if holder not in kept:
            images.unpin(image, holder)
