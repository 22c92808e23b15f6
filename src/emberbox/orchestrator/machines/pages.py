"""Guest memory counted in pages."""

from __future__ import annotations

import mmap
from typing import NamedTuple

PAGE = mmap.PAGESIZE


class Run(NamedTuple):
    """Consecutive pages, in bytes from the start of what was asked about."""

    offset: int
    length: int
