"""What a warm clone does before it is anybody's sandbox.

In software emulation code is slow when it runs for the first time, since it is translated then: a
clone has its template's memory but not what was translated of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator import envd_calls, rehearsing
from emberbox.orchestrator.envd_client import Identity
from emberbox.shared.ids import new_run_id, new_sandbox_id

if TYPE_CHECKING:
    from emberbox.orchestrator.network.addresses import Slot

_SECONDS = 120.0


async def rehearse(slot: Slot, template_id: str) -> None:
    """A first command, then again what a claim does. Raises GuestUnreachable."""
    await rehearsing.run(slot, "-l", "-c", "true", seconds=_SECONDS, stdin=False)
    await envd_calls.initialize(slot, nobody(template_id), _SECONDS)


def nobody(template_id: str) -> Identity:
    """An identity that means nothing and differs from the one before, as a real one will.

    No token: envd stays open to its gateway, as before the first /init of a sandbox.
    """
    return Identity(new_sandbox_id(), template_id, new_run_id(), "", {})
