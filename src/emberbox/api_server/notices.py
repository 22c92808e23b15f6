"""What one program lets all API servers know at once, by Redis. Nothing depends on a notice: what
it speeds up happens within seconds without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

CHANNEL = "emberbox:notices"

KEY_REVOKED = "key-revoked"
"""With the id of the key."""
TEAM_CHANGED = "team-changed"
"""With the id of the team."""


async def publish(redis: Redis, kind: str, subject: str) -> None:
    """Tell every API server. A Redis that does not answer is logged and no more."""
    from emberbox.shared.redis_connection import REDIS_ERRORS  # noqa: PLC0415 - see redis_parts

    try:
        await redis.publish(CHANNEL, f"{kind} {subject}")
    except REDIS_ERRORS as error:
        log.warning("notice not sent", kind=kind, subject=subject, error=repr(error))


def parse(message: str) -> tuple[str, str]:
    """The kind and the subject."""
    kind, _, subject = message.partition(" ")
    return kind, subject
