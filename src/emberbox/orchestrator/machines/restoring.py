"""What every restore does at its beginning and its end, whatever the VMM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import SnapshotUnusable
from emberbox.orchestrator.machines.watch import unless_ended

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from emberbox.orchestrator.machines.driver import BeforeRunning, Machine


def require_same(saved_under: str, here: str) -> None:
    """Memory loads under the very VMM alone that it was saved under. Raises SnapshotUnusable."""
    if saved_under != here:
        raise SnapshotUnusable(
            f"the memory was saved by another VMM than this host's:"
            f" {saved_under or 'unknown'}; here: {here}"
        )


async def run_loaded(
    machine: Machine, loading: Coroutine[None, None, None], before_running: BeforeRunning | None
) -> None:
    """Load a machine that stands still, do what is to be done before it runs, and let it run.

    See `Driver.restore`: the machine is stopped when anything fails before it is the caller's.
    """
    try:
        await unless_ended(machine, loading)
        if before_running is not None:
            await before_running(machine)
    except BaseException:
        await machine.stop()
        raise
    try:
        await machine.resume()
    except BaseException:
        if before_running is None:
            await machine.stop()
        raise
