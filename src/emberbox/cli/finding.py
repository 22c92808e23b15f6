"""One line of `doctor`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    """Works, with less: the text says what is lost."""
    MISSING = "missing"
    """Sandboxes cannot run until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`."""

    subject: str
    level: Level
    text: str
