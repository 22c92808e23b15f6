"""What the servers share: paths, the internal secret, logging, protocol constants."""

from __future__ import annotations
