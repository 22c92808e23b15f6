"""What the event log tells of a change: what happened to whom, who wanted it, and why. No I/O."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from emberbox.api_server import acting
from emberbox.api_server.records.lifecycle import (
    LIVE,
    LeaseEnded,
    Paused,
    Reported,
    State,
)
from emberbox.shared.correlation import current_request_id
from emberbox.shared.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from emberbox.api_server.records.lifecycle import Event, Transition
    from emberbox.api_server.store.rows import JsonValue, Sandbox

_LONGEST_REASON = 4096
_ABOUT_NOW = timedelta(seconds=1)


class What(StrEnum):
    """Stored as they are named."""

    CREATED = "created"
    """It was asked for and is being started."""
    MOVED = "moved"
    """A host refused it before it started; another one is asked."""
    STARTED = "started"
    UPDATED = "updated"
    """Its deadline was moved, or what it may reach was replaced."""
    CHECKPOINTED = "checkpointed"
    PAUSING = "pausing"
    PAUSE_FAILED = "pause_failed"
    """It runs on."""
    PAUSED = "paused"
    RESUMING = "resuming"
    RESUME_FAILED = "resume_failed"
    """It is paused as before."""
    RESUMED = "resumed"
    KILLING = "killing"
    KILLED = "killed"
    EXPIRED = "expired"
    CRASHED = "crashed"
    FAILED = "failed"
    """It never ran."""


ENDS = frozenset({What.KILLED, What.EXPIRED, What.CRASHED, What.FAILED})
"""What is the last thing that happens to a sandbox."""

_REACHED = {
    State.PAUSING: What.PAUSING,
    State.RESUMING: What.RESUMING,
    State.KILLING: What.KILLING,
    State.KILLED: What.KILLED,
    State.EXPIRED: What.EXPIRED,
    State.CRASHED: What.CRASHED,
    State.FAILED: What.FAILED,
}
_RUNS = {
    State.CREATING: What.STARTED,
    State.RESUMING: What.RESUMED,
    State.PAUSING: What.PAUSE_FAILED,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the event log."""

    event_id: str
    at: datetime
    what: What
    actor: str
    """See `acting`."""
    reason: str
    """Why, for people. The end of a guest's console may be in it: lines, and no controls."""
    sandbox_id: str
    execution_id: str
    team_id: str
    node_id: str
    template_id: str
    build_id: str
    request_id: str
    """As in the logs; empty: nobody's request."""
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    settles: What | None = None
    """The entry of the same run that this one completes: whoever asked for that one did this."""


def entry(row: Sandbox, what: What, at: datetime, reason: str = "", **data: JsonValue) -> Entry:
    """Something that is done to a sandbox on behalf of the current actor."""
    return Entry(
        event_id=str(uuid.uuid4()),
        at=at,
        what=what,
        actor=acting.current(),
        reason=readable(reason),
        sandbox_id=row.sandbox_id,
        execution_id=row.execution_id,
        team_id=row.team_id,
        node_id=row.node_id,
        template_id=row.template_id,
        build_id=row.build_id,
        request_id=current_request_id(),
        data=data,
    )


def created(row: Sandbox) -> Entry:
    """A reservation."""
    sizes: dict[str, JsonValue] = {
        "vcpu": row.vcpu,
        "ram_mb": row.ram_mb,
        "disk_mb": row.disk_mb,
        "end_at": row.end_at.isoformat(),
        "on_deadline": "pause" if row.auto_pause else "kill",
    }
    return entry(row, What.CREATED, row.started_at, "", **sizes)


def changed(row: Sandbox, event: Event, transition: Transition, at: datetime) -> Entry | None:
    """What a transition is for the event log; None when nothing happened that anyone would see."""
    what = what_happened(transition)
    if what is None:
        return None
    killed = transition.before is State.KILLING and what is What.KILLED
    known = row.end_reason if killed else None
    told = transition.reason or known or str(getattr(event, "reason", ""))
    made = entry(row, what, at, told, **_data(event, transition))
    if killed:
        return replace(made, settles=What.KILLING)
    if transition.before is State.PAUSING and what is What.PAUSED:
        return replace(made, settles=What.PAUSING)
    return replace(made, actor=_actor(row, event) or made.actor)


def readable(reason: str) -> str:
    """Bounded, and without what would steer a terminal: a guest may have written part of it."""
    text = printable(reason)
    if len(text) <= _LONGEST_REASON:
        return text
    half = _LONGEST_REASON // 2
    return f"{text[:half]} … {text[-half:]}"


def what_happened(transition: Transition) -> What | None:
    """None when nothing did that anyone would see."""
    before, after = transition.before, transition.after
    if before is after:
        return None  # only with what it is paused became known
    if after is State.RUNNING:
        return _RUNS.get(before)
    if after is State.PAUSED:
        return What.RESUME_FAILED if before is State.RESUMING else What.PAUSED
    return _REACHED.get(after)


def _actor(row: Sandbox, event: Event) -> str | None:
    """Who did what nobody here asked for."""
    match event:
        case Reported(outcome=State.EXPIRED):
            return acting.DEADLINE
        case Reported():
            return acting.host(row.node_id)
        case Paused(at=at):
            late = row.auto_pause and at >= row.end_at - _ABOUT_NOW
            return acting.DEADLINE if late else acting.host(row.node_id)
        case LeaseEnded() if row.state is State.RUNNING:
            return acting.DEADLINE
    return None


def _data(event: Event, transition: Transition) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {}
    if isinstance(event, Paused) and event.memory is not None:
        data["memory"] = event.memory
    if transition.new_execution_id is not None:
        data["new_execution_id"] = transition.new_execution_id
    if transition.after not in LIVE:
        data["because"] = type(event).__name__
    return data
