"""The Accept-Encoding header (RFC 9110, section 12.5.3), for the two codings that envd sends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emberbox.envd.errors import UnacceptableError

_ITEM = re.compile(
    r"\s*([\w.!#$%&'*+^`|~-]+)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?"
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the client takes."""

    identity: bool
    gzip: bool
    """Asked for, and not less than the file as it is."""
    only_gzip: bool
    """No other coding was named: not the list of all that an HTTP library can decode."""


def accepted(header: str | None) -> Accepted:
    """Raises UnacceptableError when nothing that we send is acceptable."""
    weights = _weights(header or "")
    others = weights.get("*")
    identity = weights.get("identity", 0.0 if others == 0 else None)
    gzip = weights.get("gzip", weights.get("x-gzip"))
    if gzip is None and identity == 0:
        gzip = others
    found = Accepted(
        identity=identity != 0,
        gzip=bool(gzip) and (gzip or 0) >= (identity or 0),
        only_gzip=weights.keys() <= {"gzip", "x-gzip", "identity"},
    )
    if not found.identity and not found.gzip:
        raise UnacceptableError(f"no acceptable encoding found: {header}")
    return found


def _weights(header: str) -> dict[str, float]:
    """By lower-case coding; an item that is not understood is left out."""
    items = (_ITEM.fullmatch(item) for item in header.split(","))
    return {item[1].lower(): float(item[2] or 1) for item in items if item}
