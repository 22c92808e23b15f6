"""Which images a build needs, as pins in the image store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emberbox.orchestrator.images import ImageStore
    from emberbox.orchestrator.templates.store import Template

PREFIX = "template-"


def pin_name(template: Template) -> str:
    """Who pins: the build."""
    return f"{PREFIX}{template.build_id}"


def pin(images: ImageStore, template: Template) -> None:
    """Keep what the build was made on. Raises FileNotFoundError when it is gone already."""
    for image in template.manifest.images.values():
        images.pin(image, pin_name(template))


def unpin_all_but(images: ImageStore, kept: set[str]) -> None:
    """By what is pinned, not by what was removed: a crash may have come between the two."""
    for image in images.images():
        for holder in images.pins(image.hash):
            if holder.startswith(PREFIX) and holder not in kept:
                images.unpin(image.hash, holder)
