"""Lists of sandboxes, both generations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Query, Response

from emberbox.api_server.errors import BadRequestError
from emberbox.api_server.listing import ListQuery, decode_cursor, decode_metadata, list_page
from emberbox.api_server.models import ListedSandbox
from emberbox.api_server.records.lifecycle import SHOWN_PAUSED, SHOWN_RUNNING, VISIBLE, State
from emberbox.api_server.routes.dependencies import Caller, Parts, authenticated_router
from emberbox.api_server.routes.documenting import NEXT_TOKEN, error_answers
from emberbox.api_server.template_names import TemplateReference

router = authenticated_router("sandboxes")

_MOST = 100
_STATES = {"running": SHOWN_RUNNING, "paused": SHOWN_PAUSED}
_ERRORS = error_answers(400)

Metadata = Annotated[str | None, Query(description="query string; each part is URL-encoded")]


@router.get(
    "/v2/sandboxes",
    operation_id="listSandboxesV2",
    response_model_exclude_none=True,
    responses=NEXT_TOKEN | _ERRORS,
)
async def list_v2(
    *,
    response: Response,
    caller: Caller,
    parts: Parts,
    state: Annotated[list[str] | None, Query(description="running,paused")] = None,
    metadata: Metadata = None,
    order: Literal["asc", "desc"] = "desc",
    started_after: Annotated[datetime | None, Query(alias="startedAfter")] = None,
    template: str | None = None,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    next_token: Annotated[str | None, Query(alias="nextToken")] = None,
) -> list[ListedSandbox]:
    """A page of a team's sandboxes; `x-next-token` is set while there are more."""
    template_id = None
    if template is not None:
        found = await parts.templates.find(TemplateReference.parse(template), caller.team)
        if found is None:
            return []
        template_id = found.template_id
    descending = order == "desc"
    query = ListQuery(
        team_id=caller.team.team_id,
        metadata=decode_metadata(metadata) if metadata else {},
        limit=limit,
        descending=descending,
        states=_states(state),
        started_after=_with_zone(started_after),
        template_id=template_id,
        after=decode_cursor(next_token, descending=descending) if next_token else None,
    )
    rows, following = await list_page(parts.store.sandboxes, query)
    if following is not None:
        response.headers["x-next-token"] = following
    return [parts.presenter.listed(row) for row in rows]


@router.get(
    "/sandboxes",
    operation_id="listSandboxes",
    response_model_exclude_none=True,
    responses=_ERRORS,
)
async def list_v1(caller: Caller, parts: Parts, metadata: Metadata = None) -> list[ListedSandbox]:
    """Every running sandbox of a team (SDKs up to 2.45)."""
    wanted = decode_metadata(metadata) if metadata else {}
    found: list[ListedSandbox] = []
    after = None
    while True:
        query = ListQuery(caller.team.team_id, wanted, _MOST, states=SHOWN_RUNNING, after=after)
        rows, following = await list_page(parts.store.sandboxes, query)
        found += [parts.presenter.listed(row) for row in rows]
        if following is None:
            return found
        after = decode_cursor(following, descending=True)


def _states(values: list[str] | None) -> frozenset[State]:
    asked = {part for value in values or () for part in value.split(",") if part}
    if not asked <= _STATES.keys():
        raise BadRequestError(f"Invalid state: {', '.join(sorted(asked - _STATES.keys()))}")
    return frozenset().union(*(_STATES[one] for one in asked)) or VISIBLE


def _with_zone(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)
