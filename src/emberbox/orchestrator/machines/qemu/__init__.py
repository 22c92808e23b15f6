"""QEMU as VMM: KVM where it truly works, else software emulation (TCG)."""

from __future__ import annotations
