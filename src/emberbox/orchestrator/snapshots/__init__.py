"""Paused sandboxes on this host: what their snapshots record, and where they are kept."""

from __future__ import annotations
