"""The database of the control plane: SQLite on one machine, Postgres on many."""

from __future__ import annotations

from emberbox.api_server.store.rows import (
    ApiKey,
    Build,
    Limits,
    NodeRecord,
    NodeUsage,
    Sandbox,
    Snapshot,
    Team,
    Template,
)
from emberbox.api_server.store.store import Store

__all__ = [
    "ApiKey",
    "Build",
    "Limits",
    "NodeRecord",
    "NodeUsage",
    "Sandbox",
    "Snapshot",
    "Store",
    "Team",
    "Template",
]
