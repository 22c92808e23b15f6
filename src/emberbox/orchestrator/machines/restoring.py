"""The end of every restore, whatever the VMM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator.machines.watch import unless_ended

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from emberbox.orchestrator.machines.driver import BeforeRunning, Machine


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
