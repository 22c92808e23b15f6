"""Labels of nodes, as people write them: `zone=a,disk=nvme`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from emberbox.shared.lists import parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_VALUE = re.compile(r"[A-Za-z0-9._-]{0,63}")


def parse_labels(text: str) -> dict[str, str]:
    """Raises ValueError that quotes the part that is wrong."""
    labels = {}
    for part in parts_of(text):
        name, separator, value = part.partition("=")
        if not (separator and _NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise ValueError(f"{part!r} is not name=value of letters, digits and . _ / -")
        labels[name] = value
    return labels


def format_labels(labels: Mapping[str, str]) -> str:
    """The same way back."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
