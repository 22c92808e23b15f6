"""What ties the log lines of one request together, across the programs it passes through.

The API server takes a request's id from its client or makes one, gives it back in the answer, and
sends it on with every call; each program binds it, with the sandbox's id, to all that it logs
while it works on that request.
"""

from __future__ import annotations

import re
import uuid
from contextvars import copy_context
from typing import TYPE_CHECKING

from structlog.contextvars import bind_contextvars, get_contextvars, unbind_contextvars

if TYPE_CHECKING:
    from contextvars import Context

REQUEST_ID = "request_id"
SANDBOX_ID = "sandbox_id"
"""How both are called in the logs."""

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_from(presented: str | bytes | None) -> str:
    """The id that a caller gave, when it can stand in a log, or a new one."""
    given = presented.decode("latin-1") if isinstance(presented, bytes) else presented
    return given if given and _ACCEPTED.fullmatch(given) else uuid.uuid4().hex


def bind(**ids: str) -> None:
    """From now on, in this task and in those that it starts; what is empty is left out."""
    bind_contextvars(**{name: value for name, value in ids.items() if value})


def current_request_id() -> str:
    """The id of the request that is being worked on; empty when there is none."""
    return str(get_contextvars().get(REQUEST_ID, ""))


def without_request() -> Context:
    """A context for work that a request starts and that is not its own: watching, timers."""
    context = copy_context()
    context.run(unbind_contextvars, REQUEST_ID)
    return context
