"""Commands in a guest before anybody waits for it, as the first caller of a sandbox runs them."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from emberbox.orchestrator import envd_client
from emberbox.orchestrator.errors import GuestUnreachable

if TYPE_CHECKING:
    from emberbox.orchestrator.network.addresses import Slot


async def run(slot: Slot, *arguments: str, seconds: float, **options: object) -> None:
    """Run a shell in the guest through envd, which has no token yet. Raises GuestUnreachable."""
    start = {"process": {"cmd": "/bin/bash", "args": arguments}, **options}
    message = json.dumps(start).encode()
    body = struct.pack(">BI", 0, len(message)) + message
    answer = await envd_client.call(
        slot, "/process.Process/Start", body, "application/connect+json", seconds
    )
    if answer.status != 200 or b'"end"' not in answer.body:
        raise GuestUnreachable(f"envd could not run {arguments}: {answer.body!r}")
