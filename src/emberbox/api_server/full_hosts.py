"""Why a host takes no more, in the words that the host itself has for it, with the setting."""

from __future__ import annotations


def full_of_sandboxes(count: int, most: int) -> str:
    """It has as many as it may have."""
    return f"the host is full: it runs {count} sandboxes (EMBERBOX_MAX_SANDBOXES={most})"


def full_of_promises(ram_mb: int, most_mb: int) -> str:
    """Its memory is given away; both in MiB."""
    return (
        f"the host has promised {ram_mb} MiB of memory and may promise {most_mb}"
        " (EMBERBOX_MEMORY_OVERCOMMIT)"
    )
