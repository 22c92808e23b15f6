"""What a create asks for, checked and free of HTTP."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.api_server.store.rows import JsonValue


@dataclass(frozen=True, slots=True)
class WantedSandbox:
    """The request of a create. `timeout` is seconds."""

    template: str
    timeout: int
    secure: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    env_vars: Mapping[str, str] = field(default_factory=dict)
    allow_internet_access: bool | None = None
    public_traffic: bool = True
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: bool = False
    shown_template_id: str | None = None
    idempotency_key: str | None = None

    def fingerprint(self) -> str:
        """Equal for equal requests. A hash, because environment variables hold secrets."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
