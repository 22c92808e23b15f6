"""Who wants what the code at hand does: for the event log and for reasons.

Kept in a context variable, so that it reaches what a request starts in the background, too.
"""

from __future__ import annotations

from contextvars import ContextVar

API_SERVER = "api-server"
"""This program by itself, as when it compares its records with what a host has."""

TRAFFIC = "traffic"
"""A request to a paused sandbox, through a proxy."""

DEADLINE = "deadline"

OPERATOR = "operator"
"""Who works on the database itself, by a command."""

_KEY = "key:"
_HOST = "host:"
_actor: ContextVar[str] = ContextVar("emberbox_actor", default=API_SERVER)


def act_as(actor: str) -> None:
    """From now on, in this task and in those that it starts."""
    _actor.set(actor)


def current() -> str:
    """Who it is now."""
    return _actor.get()


def key(key_id: str) -> str:
    """Whoever has this API key."""
    return f"{_KEY}{key_id}"


def host(node_id: str) -> str:
    """A host, in a matter that it was not asked for."""
    return f"{_HOST}{node_id}"


def key_id_of(actor: str) -> str | None:
    """The API key that an actor is; None when it is something else."""
    return actor.removeprefix(_KEY) if actor.startswith(_KEY) else None


def described(actor: str) -> str:
    """For people."""
    kind, _, name = actor.partition(":")
    return f"{'API key' if kind == 'key' else kind} {name}" if name else actor
