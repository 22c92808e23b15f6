"""One module a schema change, oldest first."""

from __future__ import annotations
