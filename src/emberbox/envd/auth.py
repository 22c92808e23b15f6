"""Who may call what."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from emberbox.envd.errors import UnauthenticatedError

if TYPE_CHECKING:
    from emberbox.envd.state import State

# /files also takes signatures and judges for itself; the others of the host look at the peer.
_OPEN = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/files"),
        ("POST", "/files"),
        ("POST", "/init"),
        ("POST", "/bridge"),
        ("GET", "/telemetry"),
    }
)
_REFUSED = "unauthorized access, please provide a valid access token or method signing if supported"


def same(given: str, expected: str) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def check_token(state: State, method: str, path: str, given: str | None) -> None:
    """Raises UnauthenticatedError unless the call is open or carries the token."""
    if state.access_token is None or (method, path) in _OPEN:
        return
    if given is None or not same(given, state.access_token):
        raise UnauthenticatedError(_REFUSED)


def check_files_token(state: State, given: str | None) -> bool:
    """Whether `/files` needs no signature: no token is set, or the right one was sent.

    Raises UnauthenticatedError for a wrong token.
    """
    if state.access_token is None:
        return True
    if given is None:
        return False
    if not same(given, state.access_token):
        raise UnauthenticatedError("access token present in header but does not match")
    return True
