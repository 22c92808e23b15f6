"""Lists of sandboxes: filters, order and pages (protocol 2.4)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from emberbox.api_server.errors import BadRequestError
from emberbox.api_server.records.lifecycle import VISIBLE, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.api_server.store.rows import Sandbox
    from emberbox.api_server.store.sandboxes import SandboxStore

_BATCH = 500
_MOST_METADATA = 100
_SEPARATOR = "__"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list is asked for."""

    team_id: str
    metadata: Mapping[str, str]
    limit: int
    descending: bool = True
    states: frozenset[State] = VISIBLE
    started_after: datetime | None = None
    template_id: str | None = None
    after: tuple[datetime, str] | None = None


async def list_page(store: SandboxStore, query: ListQuery) -> tuple[list[Sandbox], str | None]:
    """A page and the token of the next one, if there is one."""
    found: list[Sandbox] = []
    after = query.after
    # The metadata are matched here: their look-up differs between databases, and the live
    # rows of one team are few.
    batch = _BATCH if query.metadata else query.limit + 1
    while len(found) <= query.limit:
        rows = await store.page(
            query.team_id,
            query.states,
            limit=batch,
            descending=query.descending,
            after=after,
            started_after=query.started_after,
            template_id=query.template_id,
        )
        found += [row for row in rows if query.metadata.items() <= row.metadata.items()]
        if len(rows) < batch:
            break
        after = (rows[-1].started_at, rows[-1].sandbox_id)
    if len(found) <= query.limit:
        return found, None
    page = found[: query.limit]
    return page, encode_cursor(page[-1], descending=query.descending)


def encode_cursor(row: Sandbox, *, descending: bool) -> str:
    """Where the next page begins: opaque to clients."""
    parts = [row.started_at.isoformat(), row.sandbox_id]
    if not descending:
        parts.append("asc")
    return base64.urlsafe_b64encode(_SEPARATOR.join(parts).encode()).decode()


def decode_cursor(token: str, *, descending: bool) -> tuple[datetime, str]:
    """Raises BadRequestError when it is not one of ours, or is of the other order."""
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
        started, sandbox_id, *order = text.split(_SEPARATOR)
        moment = datetime.fromisoformat(started)
    except (ValueError, binascii.Error) as error:
        raise BadRequestError("Invalid next token") from error
    if order != ([] if descending else ["asc"]) or moment.tzinfo is None:
        raise BadRequestError("Invalid next token")
    return moment, sandbox_id


def decode_metadata(value: str) -> dict[str, str]:
    """Metadata as the SDKs encode them: a query string in a query value, its parts quoted first.

    The framework has decoded the value once; each part is still encoded twice.
    Raises BadRequestError.
    """
    try:
        pairs = parse_qsl(value, keep_blank_values=True, max_num_fields=_MOST_METADATA)
    except ValueError as error:
        raise BadRequestError(f"metadata: more than {_MOST_METADATA} pairs") from error
    return {unquote(key): unquote(text) for key, text in pairs}
