"""The control plane against a stand-in for the orchestrator."""

from __future__ import annotations
