"""What a machine was made with, told to people.

The text that a driver gives is its version, and after ": " all else that must be the same.
"""

from __future__ import annotations

from emberbox.orchestrator.errors import SnapshotUnusable

_LONGEST = 300


def require_same(saved: str, here: str) -> None:
    """Memory loads under the very VMM alone that it was saved under. Raises SnapshotUnusable."""
    if saved != here:
        raise SnapshotUnusable(another_vmm(saved, here))


def another_vmm(saved: str, here: str) -> str:
    """Why memory that was saved under `saved` cannot be loaded under `here`."""
    return f"its memory was saved by another VMM than this host's: {_difference(saved, here)}"


def _difference(saved: str, here: str) -> str:
    """The versions, or where these are the same the options that are not."""
    old, _, options_then = saved.partition(": ")
    new, _, options_now = here.partition(": ")
    if old != new:
        return f"{old or 'unknown'}; here: {new}"
    then, now = options_then.split(), options_now.split()
    gone = " ".join(word for word in then if word not in now)
    added = " ".join(word for word in now if word not in then)
    return f"{old} with {gone[:_LONGEST] or 'less'}; here with {added[:_LONGEST] or 'less'}"
