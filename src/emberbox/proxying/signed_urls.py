"""Signed file URLs that name no sandbox: `/files?path=…&signature=v1_…` at the bare address.

SDKs make them when they are told one URL for all sandboxes, and plain HTTP clients fetch them. The
client proxy only recognises them; the data proxy finds the sandbox by its token.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from emberbox.proxying import replies

if TYPE_CHECKING:
    from emberbox.proxying.heads import RequestHead
    from emberbox.proxying.replies import Reply

HEADER_SIGNED_URL_FROM = "X-Emberbox-Signed-Url-From"
"""Marks such a request towards the data proxy; the value is the client's address."""

MOST_QUERY_BYTES = 16 * 1024
"""Room for the longest path there is, with every byte percent-encoded."""
MOST_QUERY_FIELDS = 100

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"OPTIONS"})
_SIGNATURE = re.compile(rb"(?:\A|&)signature=")


def has_signed_url(request: RequestHead) -> bool:
    """Whether the request is for `/files`, by a method that it has, and shows a signature."""
    path, _, query = request.target.partition(b"?")
    return path == b"/files" and request.method in _METHODS and _SIGNATURE.search(query) is not None


def refused_query(request: RequestHead) -> Reply | None:
    """An answer for a query that would cost too much to look at."""
    query = request.target.partition(b"?")[2]
    if len(query) <= MOST_QUERY_BYTES and query.count(b"&") < MOST_QUERY_FIELDS:
        return None
    return replies.signed_query_too_long(MOST_QUERY_BYTES, MOST_QUERY_FIELDS)
