"""The `emberbox` command."""

from __future__ import annotations
