"""Firecracker as VMM: hardware virtualization alone, in production behind its jailer.

What follows from its interface is in docs/firecracker.md.
"""

from __future__ import annotations
