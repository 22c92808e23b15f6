"""The life of a sandbox as the control plane records it."""

from __future__ import annotations
