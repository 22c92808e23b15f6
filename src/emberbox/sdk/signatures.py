"""Signed URLs of files: whoever has one needs no token. No I/O.

The daemon computes the same digest over the query as it came and its own token.
"""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Literal, TypedDict
from urllib.parse import quote, urlencode

from .errors import InvalidArgumentException


class Signature(TypedDict):
    """A signature of one file, one operation, one user."""

    signature: str
    expiration: int | None
    """Unix time in seconds; None for as long as the sandbox lives."""


def get_signature(
    path: str,
    operation: Literal["read", "write"],
    user: str | None,
    envd_access_token: str | None,
    expiration_in_seconds: int | None = None,
) -> Signature:
    """Sign access to a file.

    Args:
        path: as it is in the URL's query.
        user: as in the query too, so None where that names none.
        envd_access_token: the token of the sandbox's daemon.
        expiration_in_seconds: from now.

    Raises:
        ValueError: there is no token, as in a sandbox that is not secured.
    """
    if not envd_access_token:
        raise ValueError("a signature needs the access token of a secured sandbox")
    signed = [path, operation, user or "", envd_access_token]
    expiration = None
    if expiration_in_seconds is not None:
        expiration = int(time.time()) + expiration_in_seconds
        signed.append(str(expiration))
    digest = hashlib.sha256(":".join(signed).encode()).digest()
    text = base64.b64encode(digest).decode().rstrip("=")
    return Signature(signature=f"v1_{text}", expiration=expiration)


def file_query(
    path: str,
    operation: Literal["read", "write"],
    user: str | None,
    token: str | None,
    expiration_in_seconds: int | None,
) -> str:
    """Query of the URL of a file, beginning with `?`; signed if there is a token.

    Raises InvalidArgumentException for an expiration without a token.
    """
    query = {"path": path, "username": user}
    if token:
        made = get_signature(path, operation, user, token, expiration_in_seconds)
        expiration = made["expiration"]
        query["signature"] = made["signature"]
        query["signature_expiration"] = None if expiration is None else str(expiration)
    elif expiration_in_seconds is not None:
        raise InvalidArgumentException(
            "use_signature_expiration needs a secured sandbox: this one has no access token to"
            " sign with"
        )
    given = {name: value for name, value in query.items() if value}
    text = urlencode(given, quote_via=quote, safe="")
    return f"?{text}" if text else ""
