"""Which template builds this host offers at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import TemplateMissing

if TYPE_CHECKING:
    from emberbox.orchestrator.templates.store import Template


class TemplateCatalog:
    """Builds by template id, the newest of each first in line for new sandboxes."""

    def __init__(self) -> None:
        self._templates: dict[str, Template] = {}

    def offer(self, template: Template) -> None:
        """Make a build the one that new sandboxes of its template start from."""
        self._templates[template.spec.template_id] = template

    def all(self) -> list[Template]:
        """What is offered."""
        return list(self._templates.values())

    def get(self, template_id: str, build_id: str = "") -> Template:
        """The offered build. Raises TemplateMissing, also when another build is asked for."""
        template = self._templates.get(template_id)
        if template is None:
            raise TemplateMissing(f"template {template_id} is not on this host")
        if build_id and template.build_id != build_id:
            raise TemplateMissing(f"build {build_id} of template {template_id} is not on this host")
        return template
