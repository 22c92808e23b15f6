"""What this machine's kernel can do, where tests expect something else of older ones."""

from __future__ import annotations

import platform

_VERSION = tuple(map(int, platform.release().split(".")[:2]))

TELLS_ENDS = _VERSION >= (6, 15)
"""It tells how a process ended to others than its parent."""
