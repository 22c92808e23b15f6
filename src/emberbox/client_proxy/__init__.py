"""Data plane edge: find the host of a sandbox and forward to it."""

from __future__ import annotations
