"""Figures of the long suites: appended to a file, for `make soak` to print."""

from __future__ import annotations

import json
import os
from pathlib import Path

_FILE = os.environ.get("EMBERBOX_REPORT")
"""Where to; without it nothing is kept."""


def add(suite: str, **figures: object) -> None:
    """Keep what a suite has found, as one line of JSON."""
    if _FILE:
        with Path(_FILE).open("a") as file:
            file.write(json.dumps({"suite": suite, **figures}) + "\n")
