"""One per host: everything about the VMs of this machine."""

from __future__ import annotations
