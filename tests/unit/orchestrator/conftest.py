"""Fixtures of every test of sandboxes on a host made of stand-ins."""

from __future__ import annotations

from tests.unit.orchestrator.sandbox_world import live, setting

__all__ = ["live", "setting"]
