"""Warm clones of templates, made before they are asked for."""

from __future__ import annotations
