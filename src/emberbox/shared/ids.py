"""Identifiers as E2B writes them."""

from __future__ import annotations

import re
import secrets
import string
import uuid

_ALPHABET = string.ascii_lowercase + string.digits
_SANDBOX_ID = re.compile(r"[a-z0-9]+\Z")


def new_sandbox_id() -> str:
    """`i` and 20 characters of `[a-z0-9]`: it becomes a DNS label, so it has no dash."""
    return "i" + "".join(secrets.choice(_ALPHABET) for _ in range(20))


def new_run_id() -> str:
    """An execution or build id (UUIDv4)."""
    return str(uuid.uuid4())


def short_sandbox_id(text: str) -> str | None:
    """The id without the `-<clientID>` that old clients append; None when it is not an id."""
    short = text.split("-", 1)[0]
    return short if _SANDBOX_ID.match(short) else None
