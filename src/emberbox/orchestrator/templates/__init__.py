"""Templates on this host: their files and the snapshots that sandboxes are cloned from."""

from __future__ import annotations
