"""Programs that measure; `python -m benchmarks NAME [--json FILE]`."""

from __future__ import annotations
