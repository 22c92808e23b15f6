"""The machine layer: one interface, a driver for each VMM."""

from __future__ import annotations
