"""Alembic's environment, shipped with the program and run at start-up."""

from __future__ import annotations
