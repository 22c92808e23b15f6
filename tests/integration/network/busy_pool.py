"""A pool that makes, uses, resets and destroys slots until it is killed: a line for each round."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.network.policy import CLOSED, OPEN
from emberbox.orchestrator.network.pool import SlotPool
from tests.integration.network.world import RANGE


async def main(tag: str, host: str, state: str, resolv_conf: str) -> None:
    """Run for ever. `tag` is the node's."""
    pool = SlotPool(
        NodeNetwork(tag, RANGE),
        Path(state),
        size=1,
        host=Path(host),
        resolv_conf=Path(resolv_conf),
    )
    await pool.start()
    while True:
        slots = await asyncio.gather(*(pool.acquire(OPEN) for _ in range(3)))
        await pool.set_policy(slots[0], CLOSED)
        await asyncio.gather(*(pool.release(slot) for slot in slots))
        print("round", flush=True)  # noqa: T201 - for whoever kills it


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
