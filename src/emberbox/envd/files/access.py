"""Who may use /files: the token, or a signature made with it."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from typing import TYPE_CHECKING

from emberbox.envd.auth import check_files_token, same
from emberbox.envd.errors import UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberbox.envd.asgi import Request
    from emberbox.envd.state import State
    from emberbox.envd.users import User, Users


_UNIX_SECONDS = re.compile(r"[0-9]{1,18}")


def sign(path: str, operation: str, username: str, token: str, expiration: str | None) -> str:
    """The signature of `operation` ("read" or "write") on the path as the query names it."""
    parts = [path, operation, username, token]
    if expiration is not None:
        parts.append(expiration)
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


def authorize(state: State, request: Request, operation: str, users: Users) -> User:
    """The user to act as. Raises UnauthenticatedError."""
    query = request.query
    if not check_files_token(state, request.headers.get("x-access-token")):
        _check_signature(query, operation, state.access_token or "")
    return users.find(query.get("username") or state.default_user)


def _check_signature(query: Mapping[str, str], operation: str, token: str) -> None:
    # A "+" of base64 that was not encoded arrives as a blank.
    given = query.get("signature", "").replace(" ", "+")
    if not given:
        raise UnauthenticatedError("missing signature query parameter")
    expiration = query.get("signature_expiration")
    expected = sign(query.get("path", ""), operation, query.get("username", ""), token, expiration)
    if not same(given, expected):
        raise UnauthenticatedError("invalid signature")
    if expiration is None:
        return
    if not _UNIX_SECONDS.fullmatch(expiration):
        raise UnauthenticatedError("invalid signature")
    if int(expiration) < time.time():
        raise UnauthenticatedError("signature is already expired")
