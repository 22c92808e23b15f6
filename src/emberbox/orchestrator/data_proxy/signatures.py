"""Finding the sandbox whose token signed a URL (protocol reference, 3.5 "Signature").

envd checks the signature again, and its expiry: what is found here is only where to go.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from emberbox.orchestrator.data_proxy.messages import Route
    from emberbox.proxying.heads import RequestHead

_VERSION = "v1_"
_OPERATIONS = {
    b"GET": ("read",),
    b"HEAD": ("read",),
    b"POST": ("write",),
    # It asks on behalf of another request, and does not say in its URL for which.
    b"OPTIONS": ("read", "write"),
}


@dataclass(frozen=True, slots=True)
class Signature:
    """A digest, and the texts it may have been made of: what is before and after the token."""

    digest: bytes
    around_token: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, request: RequestHead) -> Signature | None:
        """Read the query as envd does; None when no token can have made the signature."""
        pairs = parse_qsl(_query_of(request), keep_blank_values=True)
        query = dict(reversed(pairs))
        digest = _digest(query.get("signature", ""))
        if digest is None:
            return None
        path, username = query.get("path", ""), query.get("username", "")
        expiration = query.get("signature_expiration")
        after = "" if expiration is None else f":{expiration}"
        around = tuple(
            (f"{path}:{operation}:{username}:".encode(), after.encode())
            for operation in _OPERATIONS.get(request.method, ())
        )
        return cls(digest, around)

    def find_signer(self, routes: Iterable[Route]) -> Route | None:
        """The route whose token made the digest: one SHA-256 for each route and text."""
        known = [(route, route.envd_token.encode()) for route in routes if route.envd_token]
        for before, after in self.around_token:
            begun = hashlib.sha256(before)
            for route, token in known:
                attempt = begun.copy()
                attempt.update(token + after)
                if hmac.compare_digest(attempt.digest(), self.digest):
                    return route
        return None


def _query_of(request: RequestHead) -> str:
    return request.target.partition(b"?")[2].decode("latin-1")


def _digest(signature: str) -> bytes | None:
    if not signature.startswith(_VERSION):
        return None
    # A client that did not encode the "+" of base64 sent what decodes to a blank.
    text = signature.removeprefix(_VERSION).replace(" ", "+")
    try:
        digest = base64.b64decode(text + "=", validate=True)
    except ValueError:
        return None
    return digest if len(digest) == hashlib.sha256().digest_size else None
