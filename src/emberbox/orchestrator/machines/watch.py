"""Waiting for a guest without waiting for a dead one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from emberbox.orchestrator.errors import MachineError, MachineGone

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from emberbox.orchestrator.machines.driver import Machine

T = TypeVar("T")


async def unless_ended(machine: Machine, work: Coroutine[None, None, T]) -> T:
    """The result of `work`, which talks to the guest.

    Raises MachineGone as soon as the machine ends, and gives every MachineError the tail of the
    guest's console.
    """
    task = asyncio.create_task(work)
    ended = asyncio.create_task(machine.wait())
    try:
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise MachineGone(f"the VM ended: {ended.result()}")
        return task.result()
    except MachineError as error:
        error.console = error.console or await machine.console()
        raise
    finally:
        task.cancel()
        ended.cancel()
        await asyncio.gather(task, ended, return_exceptions=True)
