"""The daemon inside every VM."""

from __future__ import annotations
