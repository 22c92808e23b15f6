"""The lock of the packages that envd imports (`requirements/envd.txt`)."""

from __future__ import annotations

import re
from pathlib import Path

from emberbox.orchestrator.images.errors import ImageError

LOCK_NAME = "envd.txt"


def find_lock() -> Path:
    """The lock beside this module (an installed wheel carries it) or in the checkout.

    Raises ImageError when it is in neither place.
    """
    here = Path(__file__).resolve()
    candidates = (here.with_name(LOCK_NAME), here.parents[4] / "requirements" / LOCK_NAME)
    for path in candidates:
        if path.is_file():
            return path
    raise ImageError(
        f"the lock of envd's packages is at none of {', '.join(map(str, candidates))}",
        "install emberbox again or run from a whole checkout",
    )


def without(lock: str, names: frozenset[str]) -> str:
    """The lock without the entries of some packages; an entry is a line and its continuations."""
    entries = re.split(r"\n(?=[^\s#])", lock.strip())
    kept = [entry for entry in entries if _name(entry) not in names]
    return "\n".join(kept) + "\n"


def _name(entry: str) -> str:
    return re.split(r"[=<>~! ;\[]", entry, maxsplit=1)[0]
