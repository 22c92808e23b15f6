"""The forwarding engine of both proxies."""

from __future__ import annotations
