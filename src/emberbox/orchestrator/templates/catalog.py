"""Which template builds this host offers at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import TemplateMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.templates.store import Template


class TemplateCatalog:
    """The host's own templates, of each the newest build, and all checkpoints of sandboxes."""

    def __init__(self) -> None:
        self._templates: dict[str, Template] = {}
        self._checkpoints: dict[tuple[str, str], Template] = {}
        self._when_offered: Callable[[], object] = lambda: None

    def when_offered(self, callback: Callable[[], object]) -> None:
        """Call back whenever a build of the host's own templates takes the place of another."""
        self._when_offered = callback

    def offer(self, template: Template) -> None:
        """Make a build the one that new sandboxes of its template start from."""
        self._templates[template.spec.template_id] = template
        self._when_offered()

    def offer_checkpoint(self, template: Template) -> None:
        """Let sandboxes start from a checkpoint, by its build id."""
        self._checkpoints[template.spec.template_id, template.build_id] = template

    def withdraw_checkpoint(self, template_id: str, build_id: str) -> None:
        """Let none start from it any more."""
        self._checkpoints.pop((template_id, build_id), None)

    def checkpoint(self, template_id: str, build_id: str) -> Template:
        """A checkpoint. Raises TemplateMissing."""
        try:
            return self._checkpoints[template_id, build_id]
        except KeyError:
            raise _build_missing(template_id, build_id) from None

    def all(self) -> list[Template]:
        """The host's own templates."""
        return list(self._templates.values())

    def get(self, template_id: str, build_id: str = "") -> Template:
        """The offered build. Raises TemplateMissing, also when another build is asked for."""
        template = self._checkpoints.get((template_id, build_id))
        template = template or self._templates.get(template_id)
        if template is None and not build_id:
            raise TemplateMissing(f"template {template_id} is not on this host")
        if template is None or (build_id and template.build_id != build_id):
            raise _build_missing(template_id, build_id)
        return template


def _build_missing(template_id: str, build_id: str) -> TemplateMissing:
    return TemplateMissing(f"build {build_id} of template {template_id} is not on this host")
