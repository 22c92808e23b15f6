"""The life of the sandboxes of one host."""

from __future__ import annotations
