"""Lists as people write them: with commas."""

from __future__ import annotations


def parts_of(text: str) -> list[str]:
    """The parts of `a, b`, without the space around them and without those that are empty."""
    return [part for part in map(str.strip, text.split(",")) if part]
