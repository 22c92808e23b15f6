"""Giving up a node that does not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.api_server import acting
from emberbox.api_server.records import history
from emberbox.api_server.records.lifecycle import Lost, handle

if TYPE_CHECKING:
    from datetime import datetime

    from emberbox.api_server.store import Sandbox, Store


async def forget_node(store: Store, node_id: str, now: datetime) -> list[Sandbox]:
    """Record all that a node had as lost, running and paused, and forget it; what it was.

    Should it come back, what still runs there is ended, and what is paused there is taken back.
    """
    acting.act_as(acting.OPERATOR)
    lost = []
    for row in await store.sandboxes.live_on(node_id):
        event = Lost(row.execution_id, f"its host {node_id} was forgotten")
        transition = handle(row.record, event)
        entry = history.changed(row, event, transition, now)
        if await store.sandboxes.change(row.sandbox_id, row.execution_id, transition, now, entry):
            lost.append(row)
    await store.nodes.forget(node_id)
    return lost
