"""The event log of sandboxes.

After E2B's public page on lifecycle events; none of its SDKs calls these. Beyond it: `actor`,
`reason` and `requestId` in `eventData`, and `event`, our own name of what happened, which tells
ends apart that E2B calls "killed".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Query

from emberbox.api_server.errors import SandboxNotFoundError
from emberbox.api_server.models import SandboxEvent
from emberbox.api_server.records.history import ENDS, What
from emberbox.api_server.routes.dependencies import (
    Caller,
    Parts,
    SandboxId,
    authenticated_router,
)
from emberbox.api_server.routes.documenting import error_answers

if TYPE_CHECKING:
    from emberbox.api_server.records.history import Entry

router = authenticated_router("events")

_MOST = 100
_FARTHEST = 1_000_000
_TYPES = {
    What.STARTED: "created",
    What.UPDATED: "updated",
    What.CHECKPOINTED: "checkpointed",
    What.PAUSED: "paused",
    What.RESUMED: "resumed",
    **dict.fromkeys(ENDS, "killed"),
}
"""What E2B has a name for. The rest of the log is for operators: `emberbox events`."""

Offset = Annotated[int, Query(ge=0, le=_FARTHEST)]
Limit = Annotated[int, Query(ge=1, le=_MOST)]
OldestFirst = Annotated[bool, Query(alias="orderAsc")]


@router.get("/events/sandboxes", operation_id="listEvents", responses=error_answers(400))
async def team_events(
    *,
    caller: Caller,
    parts: Parts,
    offset: Offset = 0,
    limit: Limit = 10,
    order_asc: OldestFirst = False,
) -> list[SandboxEvent]:
    """What happened to a team's sandboxes, newest first unless asked otherwise."""
    found = await parts.store.events.page(
        team_id=caller.team.team_id, what=_TYPES, limit=limit, offset=offset, oldest_first=order_asc
    )
    return [_event(one) for one in found]


@router.get(
    "/events/sandboxes/{sandbox_id}",
    operation_id="listSandboxEvents",
    responses=error_answers(400, 404),
)
async def sandbox_events(
    *,
    sandbox_id: SandboxId,
    caller: Caller,
    parts: Parts,
    offset: Offset = 0,
    limit: Limit = 10,
    order_asc: OldestFirst = False,
) -> list[SandboxEvent]:
    """What happened to one sandbox, which may be over. 404: nothing is known of it."""
    found = await parts.store.events.page(
        team_id=caller.team.team_id,
        sandbox_id=sandbox_id,
        what=_TYPES,
        limit=limit,
        offset=offset,
        oldest_first=order_asc,
    )
    if not found and not offset:
        # It may have events that E2B has no name for, as while it starts.
        row = await parts.store.sandboxes.get(sandbox_id)
        if row is None or row.team_id != caller.team.team_id:
            raise SandboxNotFoundError(sandbox_id)
    return [_event(one) for one in found]


def _event(entry: Entry) -> SandboxEvent:
    about = {"event": entry.what.value, "actor": entry.actor, "reason": entry.reason}
    if entry.request_id:
        about["requestId"] = entry.request_id
    return SandboxEvent(
        id=entry.event_id,
        version="v2",
        type=f"sandbox.lifecycle.{_TYPES[entry.what]}",
        timestamp=entry.at,
        event_data={**about, **entry.data},
        sandbox_id=entry.sandbox_id,
        sandbox_execution_id=entry.execution_id,
        sandbox_template_id=entry.template_id,
        sandbox_build_id=entry.build_id,
        sandbox_team_id=entry.team_id,
    )
