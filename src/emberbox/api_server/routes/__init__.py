"""The REST API, one module for each resource."""

from __future__ import annotations
