"""Emberbox."""

from __future__ import annotations
