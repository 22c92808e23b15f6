"""What /init told envd; everything else asks it here."""

from __future__ import annotations

from dataclasses import dataclass, field

VERSION = "0.6.13"
"""Clients gate features on it, so it is E2B's numbering."""


@dataclass(slots=True)
class State:
    """The identity and defaults of the sandbox. Before the first /init it has neither."""

    access_token: str | None = None
    default_user: str = "root"
    default_workdir: str = ""
    env_vars: dict[str, str] = field(default_factory=dict)
    sandbox_id: str | None = None
    template_id: str | None = None
    lifecycle_id: str | None = None

    def environment(self) -> dict[str, str]:
        """What every process finds in its environment besides its user's own variables."""
        known = {"E2B_SANDBOX": "true"}
        if self.sandbox_id:
            known["E2B_SANDBOX_ID"] = self.sandbox_id
        if self.template_id:
            known["E2B_TEMPLATE_ID"] = self.template_id
        return known | self.env_vars
