"""The data plane's edge: finds a sandbox's host and forwards there."""

from __future__ import annotations
