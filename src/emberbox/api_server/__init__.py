"""Control plane: the REST API, teams, keys, quota, placement."""

from __future__ import annotations
