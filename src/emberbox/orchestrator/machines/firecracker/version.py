"""Versions of Firecracker, and what differs between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """A released version, or one that was built after it."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The first version that a text names: `Firecracker v1.16.1` as well as `1.17.0-dev`."""
        found = _VERSION.search(text)
        return cls(*map(int, found.groups())) if found else None

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def dirty_pages_field(self) -> str:
        """What `snapshot/load` calls the tracking of dirty pages; both names are known for some
        versions, and unknown ones are refused."""
        return "track_dirty_pages" if self >= Version(1, 14, 0) else "enable_diff_snapshots"

    def saves_changes_of(self, ram_mb: int) -> bool:
        """Whether the Diff snapshot of a VM of that size is right: until 1.15 it was not above the
        gap for devices below 4 GiB."""
        return self >= Version(1, 15, 0) or ram_mb <= _BELOW_THE_GAP_MB


OLDEST = Version(1, 12, 0)
"""The oldest that is driven: its calls and fields are there in all later ones."""

_BELOW_THE_GAP_MB = 3072
