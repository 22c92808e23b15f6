"""Client SDK."""

from __future__ import annotations
